"""Rules, routes and filter of one connection: the desired kernel state as values and as text. Pure.

Priorities (lower first): 7000 + 2n `lookup main suppress_prefixlength 0`: every route of the laptop that is not a
default route wins; 7001 + 2n `lookup 7000 + n`: the cluster's subnets, and `throw` entries for what must never go into
the device. A thrown packet goes on to the next rule, so it takes the way it had before. VPNs that keep to priorities
below 7000 (Tailscale 5210-5270, WireGuard's are above) are left alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tpd.supervisor.host.types import Granted, Holder, Network, Slot, collapse


@dataclass(frozen=True, order=True)
class Route:
    """One entry of a connection's table. No device: a throw entry."""

    version: int
    destination: str
    device: str
    source: str = ""

    def text(self, table: int) -> str:
        """As `ip route` writes it."""
        what = f"{self.destination} dev {self.device} scope link" if self.device else f"throw {self.destination}"
        source = f" src {self.source}" if self.source else ""
        return f"{what}{source} table {table}"


@dataclass(frozen=True, order=True)
class Rule:
    """One policy rule."""

    version: int
    priority: int
    table: int
    suppress: bool

    def text(self) -> str:
        """As `ip rule` writes it."""
        table = "main" if self.table == MAIN else str(self.table)
        return f"{self.priority}: from all lookup {table}" + (" suppress_prefixlength 0" if self.suppress else "")


MAIN = 254


def rules(slot: Slot) -> list[Rule]:
    """In the order in which they are added: the table's own comes last."""
    versions = (4, 6) if slot.tun_address6 else (4,)
    return [
        rule
        for version in versions
        for rule in (
            Rule(version, slot.priority, MAIN, suppress=True),
            Rule(version, slot.priority + 1, slot.table, suppress=False),
        )
    ]


def beside(me: Holder, others: Iterable[Holder]) -> Granted:
    """What a connection was granted, less what others need: their carriers and DNS addresses go past its device.

    Never less than its own DNS address, whatever others call a carrier.
    """
    theirs: list[Network] = []
    for other in others:
        theirs += other.granted.carriers
        if any(other.slot.dns_address in subnet for subnet in me.granted.subnets):
            theirs.append(ipaddress.ip_network(other.slot.dns_address))
    own = ipaddress.ip_network(me.slot.dns_address)
    throw = dict.fromkeys(n for n in (*me.granted.throw, *theirs) if n != own)
    return replace(me.granted, throw=tuple(throw))


def routes(slot: Slot, granted: Granted) -> list[Route]:
    """In the order in which they are added: throw entries first, so that no packet of a carrier ever strays."""
    throws = [Route(n.version, str(n), "") for n in granted.throw]
    own: Network = ipaddress.ip_network(slot.dns_address)
    into = [Route(n.version, str(n), slot.device, _source(slot, n)) for n in (own, *granted.subnets)]
    seen: set[str] = {route.destination for route in throws}
    into = [route for route in into if route.destination not in seen]
    return [route for route in (*throws, *into) if route.version == 4 or slot.tun_address6]


def _source(slot: Slot, network: Network) -> str:
    return str(slot.tun_address) if network.version == 4 else str(slot.tun_address6)


def diff(current: Iterable[Route], wanted: Iterable[Route]) -> tuple[list[Route], list[Route]]:
    """(to add, to remove), each in a safe order: throws are added before and removed after subnets."""
    have, want = dict.fromkeys(current), dict.fromkeys(wanted)
    add = sorted((r for r in want if r not in have), key=lambda r: bool(r.device))
    remove = sorted((r for r in have if r not in want), key=lambda r: not r.device)
    return add, remove


def filter_table(slot: Slot) -> str:
    """The name of the connection's nft table."""
    return f"tpd_{slot.device}"


def filter_text(slot: Slot, granted: Granted) -> str:
    """An nft script: from the device come only sources that are routed to it, and nothing of it is forwarded.

    The worker is the user's process, and what it writes into the device must not pass for somebody else's traffic.
    """
    name = filter_table(slot)
    networks = [ipaddress.ip_network(slot.dns_address), *granted.subnets]
    lines = [f"add table inet {name}", f"delete table inet {name}", f"table inet {name} {{"]
    lines += ["  chain prerouting {", "    type filter hook prerouting priority raw; policy accept;"]
    for version, keyword in ((4, "ip"), (6, "ip6")):
        sources = ", ".join(str(n) for n in networks if n.version == version)
        match = f"{keyword} saddr != {{ {sources} }} " if sources else f"meta nfproto ipv{version} "
        lines.append(f'    iifname "{slot.device}" {match}drop')
        thrown = [n for n in granted.throw if n.version == version and any(n.overlaps(m) for m in networks)]
        if sources and thrown:
            joined = ", ".join(str(n) for n in collapse(thrown))
            lines.append(f'    iifname "{slot.device}" {keyword} saddr {{ {joined} }} drop')
    lines += ["  }", "  chain forward {", "    type filter hook forward priority filter; policy accept;"]
    lines += [f'    iifname "{slot.device}" drop', "  }", "}"]
    return "\n".join(lines) + "\n"
