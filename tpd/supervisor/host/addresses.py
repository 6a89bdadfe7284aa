"""Which addresses a connection's device gets: a pure choice."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from tpd.supervisor.host.types import HostError, Network, Slot

SLOTS = 16
"""Connections at once. Each is a worker of some 100 MB; the rule priorities 7000-7031 are ours."""

_RANGES = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "198.19.254.0/24",  # RFC 2544 (benchmarks): hardly ever used by clusters, companies or homes
        "100.127.254.0/24",  # the end of RFC 6598
        "10.254.254.0/24",
        "172.30.254.0/24",
        "192.168.254.0/24",
    )
)
_RANGE6 = ipaddress.IPv6Network("fd74:7063:746c::/64")


def choose_slot(
    *, used: Iterable[int], tables: Iterable[int], devices: Iterable[str], networks: Iterable[Network], ipv6: bool
) -> Slot:
    """The first free slot, with addresses that no network of the laptop overlaps.

    `used`: slots in use; `tables`, `devices`: what exists, whoever made it; `networks`: what the laptop has addresses
    in or routes to, without default routes. Raises HostError when there is no free slot or no free range.
    """
    taken, in_tables, names = set(used), set(tables), set(devices)
    known = list(networks)
    for index in range(SLOTS):
        if index in taken or 7000 + index in in_tables or f"tp{index}" in names:
            continue
        for candidate in _RANGES:
            if any(candidate.overlaps(network) for network in known if network.version == 4):
                continue
            first = int(candidate.network_address) + 4 * index
            return Slot(
                index=index,
                tun_address=ipaddress.IPv4Address(first + 1),
                dns_address=ipaddress.IPv4Address(first + 2),
                tun_address6=_RANGE6[4 * index + 1] if ipv6 else None,
            )
        raise HostError(
            "the laptop's own routes overlap every address range that tpd could use; remove one of "
            + ", ".join(str(network) for network in _RANGES)
        )
    raise HostError(f"all {SLOTS} connections are in use; end one with: tpctl quit --use NAME")
