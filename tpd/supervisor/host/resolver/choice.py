"""Which adapter tells the host's programs about the cluster's names. The decision is pure, over a probe record."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Container
from dataclasses import dataclass

from tpd.supervisor.host.resolver import conf
from tpd.supervisor.host.types import Address, Upstreams

STUBS = frozenset(ipaddress.ip_address(text) for text in ("127.0.0.53", "127.0.0.54"))
"""Where systemd-resolved listens (systemd-resolved.service(8))."""


class Adapter(enum.Enum):
    """How the host's programs are told whom to ask."""

    RESOLVED = "systemd-resolved"
    FILE = "resolv.conf"
    NONE = ""


@dataclass(frozen=True)
class Probe:
    """What was found on the host."""

    resolv_conf: str | None
    """Text of resolv.conf; None when there is none."""
    link: str
    """Where resolv.conf points when it is a symbolic link, or empty."""
    uplink_conf: str | None
    """Text of /run/systemd/resolve/resolv.conf: the resolvers behind systemd-resolved's stub."""
    resolved: bool
    """systemd-resolved answers on D-Bus."""
    writable: bool
    """resolv.conf is not on a read-only file system."""

    def text(self) -> str:
        """One line for the log."""
        servers = conf.parse(self.resolv_conf).nameservers if self.resolv_conf is not None else ()
        return (
            f"resolv.conf={'absent' if self.resolv_conf is None else 'present'} link={self.link or '-'} "
            f"nameservers={','.join(map(str, servers)) or '-'} resolved={'yes' if self.resolved else 'no'} "
            f"uplinks={'yes' if self.uplink_conf is not None else 'no'} writable={'yes' if self.writable else 'no'}"
        )


def choose(probe: Probe) -> Adapter:
    """The adapter for this host.

    systemd-resolved only when programs really ask it: the C library goes past it when resolv.conf names other
    servers.
    """
    servers = conf.parse(probe.resolv_conf or "").nameservers
    if probe.resolved and servers and all(server in STUBS for server in servers):
        return Adapter.RESOLVED
    if probe.writable:
        return Adapter.FILE
    return Adapter.NONE


def upstreams(probe: Probe, ours: Container[Address] = (), searched: Container[str] = ()) -> Upstreams:
    """The laptop's own resolvers: behind systemd-resolved's stub when it is in use, else those of resolv.conf.

    `ours` and `searched` are our own servers and search domains: systemd-resolved lists them among everybody's. With
    none at all, the C library asks the local machine (resolv.conf(5)).
    """
    found = _parse(probe.resolv_conf or "", ours, searched)
    if found.nameservers and all(server in STUBS for server in found.nameservers) and probe.uplink_conf is not None:
        behind = _parse(probe.uplink_conf, ours, searched)
        search = found.search if found.search not in ((), (".",)) else behind.search
        return Upstreams(behind.nameservers or found.nameservers, tuple(name for name in search if name))
    return Upstreams(found.nameservers or (ipaddress.ip_address("127.0.0.1"),), found.search)


def _parse(text: str, ours: Container[Address], searched: Container[str]) -> conf.ResolvConf:
    found = conf.parse(text)
    return conf.ResolvConf(
        tuple(address for address in found.nameservers if address not in ours),
        tuple(name for name in found.search if name not in searched),
    )
