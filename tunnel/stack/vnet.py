"""The virtio_net_hdr that precedes every packet on a TUN opened with IFF_VNET_HDR (virtio 1.2, section 5.1.6).

Fields are in host byte order: u8 flags, u8 gso_type, u16 hdr_len, gso_size, csum_start, csum_offset.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER_LEN: Final = 10

NEEDS_CSUM: Final = 1
"""The checksum at csum_start + csum_offset holds only the pseudo header's sum; the packet never met a wire."""
DATA_VALID: Final = 2
"""The kernel has verified the checksum."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
"""Several datagrams of gso_size bytes (the last may be shorter) under one UDP header."""
GSO_ECN: Final = 0x80

_LAYOUT: Final = struct.Struct("=BBHHHH")

NO_OFFLOAD: Final = bytes(HEADER_LEN)
"""A header that asks for nothing: all checksums are in place."""


def checksum_header(csum_start: int, csum_offset: int) -> bytes:
    """Header of a packet whose transport checksum the kernel is to complete (or to take as true)."""
    return _LAYOUT.pack(NEEDS_CSUM, GSO_NONE, 0, 0, csum_start, csum_offset)


def gso_header(gso_type: int, header_len: int, gso_size: int, csum_start: int, csum_offset: int) -> bytes:
    """Header of a super-segment: `gso_size` payload bytes for each segment it stands for."""
    return _LAYOUT.pack(NEEDS_CSUM, gso_type, header_len, gso_size, csum_start, csum_offset)


def gso(packet: bytes) -> tuple[int, int]:
    """(gso_type without the ECN bit, gso_size) of a packet at least HEADER_LEN long."""
    _, gso_type, _, gso_size, _, _ = _LAYOUT.unpack_from(packet)
    return gso_type & ~GSO_ECN, gso_size
