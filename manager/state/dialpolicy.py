"""What the manager dials for a session, and what never. Applied to addresses, after every name is resolved."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified addresses mean the manager itself"),
        ("127.0.0.0/8", "loopback addresses mean the manager itself"),
        ("169.254.0.0/16", "link-local addresses lead to metadata services"),
        ("168.63.129.16/32", "that is a cloud's metadata service"),
        ("100.100.100.200/32", "that is a cloud's metadata service"),
        ("224.0.0.0/4", "multicast is not carried"),
        ("255.255.255.255/32", "broadcast is not carried"),
        ("::/128", "unspecified addresses mean the manager itself"),
        ("::1/128", "loopback addresses mean the manager itself"),
        ("fe80::/10", "link-local addresses lead to metadata services"),
        ("fd00:ec2::254/128", "that is a cloud's metadata service"),
        ("fd20:ce::254/128", "that is a cloud's metadata service"),
        ("ff00::/8", "multicast is not carried"),
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in the last 32 bits."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""RFC 4291 2.5.5.1, deprecated IPv4-compatible addresses."""


class DialPolicy:
    """`refusal(address)` says why an address is not dialled; None when it is."""

    def __init__(self, own: Iterable[Address] = (), deny: Sequence[Network] = ()) -> None:
        self._own = {_plain(address) for address in own}
        self._deny = tuple(deny)

    def add_own(self, address: Address) -> None:
        """One more address that leads to the manager (its Service's)."""
        self._own.add(_plain(address))

    def refusal(self, address: Address) -> str | None:
        """Why not, in words for the user."""
        plain = _plain(address)
        for network, why in _NEVER:
            if plain in network:
                return why
        if plain in self._own:
            return "that is the traffic-manager itself"
        for network in self._deny:
            if plain in network or address in network:
                return f"the traffic-manager's chart denies {network}"
        return None


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where the kernel or a gateway would use that."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
