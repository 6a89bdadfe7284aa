"""TCP segments (RFC 9293): reading headers and options, and building whole packets around a payload.

The payload itself is never touched: its checksum is left to the kernel (virtio NEEDS_CSUM).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from tunnel.stack import ip, vnet
from tunnel.stack.checksum import fold, ones_sum, pseudo_sum

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

HEADER: Final = struct.Struct("!HHIIBBHHH")
"""source port, destination port, sequence, acknowledgement, data offset << 4, flags, window, checksum, urgent."""

_OPTION_END: Final = 0
_OPTION_NOP: Final = 1
_OPTION_MSS: Final = 2
_OPTION_WINDOW_SCALE: Final = 3

DEFAULT_MSS4: Final = 536
"""What a peer that sends no MSS option takes (RFC 9293, 3.7.1)."""
DEFAULT_MSS6: Final = 1220
SMALLEST_MSS: Final = 64
"""A peer that asks for less gets this; no real one does."""

_PACKET4: Final = struct.Struct("!10sBBHHHBBH8sHHIIBBHHH")
_PACKET6: Final = struct.Struct("!10sIHBB32sHHIIBBHHH")


class SynOptions(NamedTuple):
    """What a SYN offers. None: the option was absent."""

    mss: int | None
    window_scale: int | None


def parse_syn_options(packet: bytes, start: int, end: int) -> SynOptions:
    """Options of a SYN between two offsets. Garbage ends the list; what was read before it counts."""
    mss: int | None = None
    scale: int | None = None
    while start < end:
        kind = packet[start]
        if kind == _OPTION_END:
            break
        if kind == _OPTION_NOP:
            start += 1
            continue
        if start + 1 >= end:
            break
        size = packet[start + 1]
        if size < 2 or start + size > end:
            break
        if kind == _OPTION_MSS and size == 4:
            mss = packet[start + 2] << 8 | packet[start + 3]
        elif kind == _OPTION_WINDOW_SCALE and size == 3:
            scale = min(packet[start + 2], 14)
        start += size
    return SynOptions(mss, scale)


def syn_options(mss: int, window_scale: int | None) -> bytes:
    """Options of our SYN-ACK, padded to whole words."""
    options = struct.pack("!BBH", _OPTION_MSS, 4, mss)
    if window_scale is not None:
        options += struct.pack("!BBBB", _OPTION_NOP, _OPTION_WINDOW_SCALE, 3, window_scale)
    return options


class SegmentBuilder:
    """Builds the headers of one connection's packets; everything that never changes is computed once."""

    __slots__ = (
        "_addresses",
        "_destination_port",
        "_gso",
        "_gso_size",
        "_ip_sum",
        "_plain",
        "_pseudo",
        "_source_port",
        "_v4",
    )

    def __init__(self, addresses: bytes, source_port: int, destination_port: int, mss: int) -> None:
        """`addresses`: our address (source) and the peer's, packed. `mss`: the largest segment the peer takes."""
        self._addresses = addresses
        self._source_port = source_port
        self._destination_port = destination_port
        self._v4 = len(addresses) == 8
        start = 20 if self._v4 else 40
        self._plain = vnet.checksum_header(start, 16)
        kind = vnet.GSO_TCPV4 if self._v4 else vnet.GSO_TCPV6
        self._gso = vnet.gso_header(kind, start + 20, mss, start, 16)
        self._gso_size = mss
        self._ip_sum = 0x4500 + 0x4000 + (64 << 8) + ip.TCP + ones_sum(addresses)
        self._pseudo = pseudo_sum(addresses, ip.TCP, 0)

    def build(
        self, sequence: int, acknowledgement: int, flags: int, window: int, length: int, options: bytes = b""
    ) -> bytes:
        """Virtio, IP and TCP header before `length` payload bytes; more than the MSS makes a super-segment."""
        header = 20 + len(options)
        tcp_length = header + length
        check = self._pseudo + tcp_length
        check = (check + (check >> 16)) & 0xFFFF
        prefix = self._plain if length <= self._gso_size else self._gso
        if self._v4:
            total = 20 + tcp_length
            ip_sum = self._ip_sum + total
            ip_sum = (ip_sum & 0xFFFF) + (ip_sum >> 16)
            ip_check = ~(ip_sum + (ip_sum >> 16)) & 0xFFFF
            packet = _PACKET4.pack(
                prefix, 0x45, 0, total, 0, 0x4000, 64, ip.TCP, ip_check, self._addresses,
                self._source_port, self._destination_port, sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF,
                header << 2, flags, window, check, 0,
            )  # fmt: skip
        else:
            packet = _PACKET6.pack(
                prefix, 0x60000000, tcp_length, ip.TCP, 64, self._addresses,
                self._source_port, self._destination_port, sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF,
                header << 2, flags, window, check, 0,
            )  # fmt: skip
        return packet + options if options else packet


def verify(packet: bytes, addresses: bytes, start: int, end: int) -> bool:
    """The checksum of a segment that the kernel has not vouched for is right."""
    return fold(pseudo_sum(addresses, ip.TCP, end - start) + ones_sum(memoryview(packet)[start:end])) == 0xFFFF
