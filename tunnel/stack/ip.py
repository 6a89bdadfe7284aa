"""IPv4 (RFC 791) and IPv6 (RFC 8200): a bounds-checked view for reading, and header builders for writing.

A packet here is what one read of the device returns: virtio header, then the IP packet.
"""

from __future__ import annotations

import struct
from typing import Final

from tunnel.stack.checksum import fold, ones_sum
from tunnel.stack.vnet import HEADER_LEN

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_DESTINATION: Final = 60

_HOP_LIMIT: Final = 64
_GROUPS4: Final = 224
"""First byte from which on an IPv4 address is a group, reserved, or the broadcast."""
_GROUPS6: Final = 0xFF
_MAX_EXTENSIONS: Final = 8
"""Extension headers followed before a packet is given up; no real packet has more than two or three."""

_V4: Final = struct.Struct("!BBHHHBBH8s")
_V6: Final = struct.Struct("!IHBB32s")
_V6_FRAGMENT: Final = struct.Struct("!BBHI")

MAX_PACKET: Final = 65535
"""Largest IP packet that this stack reads or writes (no jumbograms)."""


class IpPacket:
    """A view of one IP packet. Offsets count from the start of `packet` (its virtio header included)."""

    __slots__ = ("addresses", "end", "fragment", "identification", "more", "packet", "protocol", "start")

    def __init__(self, packet: bytes, addresses: bytes, protocol: int, start: int, end: int) -> None:
        self.packet = packet
        self.addresses = addresses
        """Source and destination, packed, in this order: 8 or 32 bytes."""
        self.protocol = protocol
        """Of the transport header (behind the extension headers)."""
        self.start = start
        """Where the transport header starts."""
        self.end = end
        """Where the IP packet ends."""
        self.fragment = 0
        """Offset of this fragment's data in the whole, in bytes."""
        self.more = False
        """More fragments follow this one."""
        self.identification = 0
        """Which packet a fragment belongs to."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.addresses) == 8 else 6

    @property
    def is_fragment(self) -> bool:
        """This is a part of a packet, not a whole one."""
        return self.more or self.fragment > 0


def parse(packet: bytes) -> IpPacket | None:
    """View of what the device delivered; None when it is not a sound IP packet to one host.

    What goes to a group (mDNS, MLD and the like, which every interface of a laptop gets) ends here.
    """
    if len(packet) < HEADER_LEN + 20:
        return None
    version = packet[HEADER_LEN] >> 4
    if version == 4:
        return _parse4(packet)
    if version == 6:
        return _parse6(packet)
    return None


def _parse4(packet: bytes) -> IpPacket | None:
    first, _, total, identification, fragment, _, protocol, _, addresses = _V4.unpack_from(packet, HEADER_LEN)
    header = (first & 15) << 2
    end = HEADER_LEN + total
    if header < 20 or total < header or end > len(packet) or addresses[4] >= _GROUPS4:
        return None
    view = IpPacket(packet, addresses, protocol, HEADER_LEN + header, end)
    if fragment & 0x3FFF:
        view.fragment = (fragment & 0x1FFF) << 3
        view.more = bool(fragment & 0x2000)
        view.identification = identification
    return view


def _parse6(packet: bytes) -> IpPacket | None:
    start = HEADER_LEN + 40
    if len(packet) < start:
        return None
    _, length, protocol, _, addresses = _V6.unpack_from(packet, HEADER_LEN)
    end = start + length
    if end > len(packet) or addresses[16] == _GROUPS6:
        return None
    view = IpPacket(packet, addresses, protocol, start, end)
    for _ in range(_MAX_EXTENSIONS):
        if protocol not in (_HOP_BY_HOP, _ROUTING, _DESTINATION, _FRAGMENT):
            view.protocol, view.start = protocol, start
            return view
        if start + 8 > end:
            return None
        if protocol == _FRAGMENT:
            protocol, _, fragment, view.identification = _V6_FRAGMENT.unpack_from(packet, start)
            view.fragment, view.more = fragment & 0xFFF8, bool(fragment & 1)
            start += 8
            if view.is_fragment:
                view.protocol, view.start = protocol, start
                return view
        else:
            protocol, start = packet[start], start + 8 + (packet[start + 1] << 3)
            if start > end:
                return None
    return None


def build4(
    addresses: bytes, protocol: int, length: int, *, identification: int = 0, fragment: int | None = None
) -> bytes:
    """IPv4 header for `length` bytes of payload. `fragment`: the flags-and-offset word; None: do not fragment."""
    flags = 0x4000 if fragment is None else fragment
    total = 20 + length
    constant = 0x4500 + (_HOP_LIMIT << 8) + protocol
    check = ~fold(constant + total + identification + flags + ones_sum(addresses)) & 0xFFFF
    return _V4.pack(0x45, 0, total, identification, flags, _HOP_LIMIT, protocol, check, addresses)


def build6(addresses: bytes, protocol: int, length: int) -> bytes:
    """IPv6 header for `length` bytes behind it."""
    return _V6.pack(0x60000000, length, protocol, _HOP_LIMIT, addresses)


def build6_fragment(protocol: int, offset: int, more: bool, identification: int) -> bytes:
    """IPv6 fragment header for the part at `offset` (a multiple of 8)."""
    return _V6_FRAGMENT.pack(protocol, 0, offset | more, identification)


FRAGMENT_PROTOCOL: Final = _FRAGMENT


def reverse(addresses: bytes) -> bytes:
    """The pair with source and destination exchanged."""
    half = len(addresses) >> 1
    return addresses[half:] + addresses[:half]


def packet_for(addresses: bytes, protocol: int, payload_length: int) -> bytes:
    """IP header (no extension) of the family of `addresses`."""
    if len(addresses) == 8:
        return build4(addresses, protocol, payload_length)
    return build6(addresses, protocol, payload_length)
