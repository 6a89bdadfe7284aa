"""Reassembly of fragmented IP packets (RFC 791, 3.2; RFC 8200, 4.5), under a byte and a time bound."""

from __future__ import annotations

from tunnel.stack import ip, vnet
from tunnel.stack.ip import IpPacket

_Key = tuple[bytes, int, int]
_PIECE_OVERHEAD = 128
"""Charged for every piece, so that a flood of tiny ones is bounded as well."""


class _Partial:
    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.pieces: list[tuple[int, bytes]] = []
        self.charged = 0
        self.end = 0
        self.total: int | None = None


class Fragments:
    """Packets of which some parts have arrived."""

    def __init__(self, limit: int, pieces: int, timeout: float) -> None:
        """`limit`: bytes held for all packets; `pieces`: of one; `timeout`: seconds from a packet's first part."""
        self._limit = limit
        self._pieces = pieces
        self._timeout = timeout
        self._partial: dict[_Key, _Partial] = {}
        self.held = 0
        """Bytes charged now."""

    def add(self, view: IpPacket, now: float) -> IpPacket | None:
        """Take a fragment; the whole packet when this completes it. Overlapping parts discard the packet (RFC 5722),
        as do parts that do not agree about where it ends."""
        key = (view.addresses, view.protocol, view.identification)
        data = view.packet[view.start : view.end]
        end = view.fragment + len(data)
        partial = self._partial.get(key)
        if partial is None:
            partial = self._partial[key] = _Partial(now + self._timeout)
        if end > ip.MAX_PACKET or len(partial.pieces) >= self._pieces or not data or (view.more and len(data) & 7):
            self._drop(key)
            return None
        for begin, piece in partial.pieces:
            if begin < end and view.fragment < begin + len(piece):
                if (begin, piece) != (view.fragment, data):
                    self._drop(key)
                return None
        partial.pieces.append((view.fragment, data))
        partial.charged += len(data) + _PIECE_OVERHEAD
        self.held += len(data) + _PIECE_OVERHEAD
        partial.end = max(partial.end, end)
        if not view.more:
            if partial.total not in (None, end):
                self._drop(key)
                return None
            partial.total = end
        if partial.total is not None and partial.end > partial.total:
            self._drop(key)
            return None
        # Nothing overlaps and nothing is beyond the end: with so many bytes there is no hole either.
        if sum(len(piece) for _, piece in partial.pieces) == partial.total:
            self._drop(key)
            partial.pieces.sort()
            return _whole(view, partial)
        while self.held > self._limit:
            self._drop(next(iter(self._partial)))
        return None

    def next_timeout(self) -> float | None:
        """When `expire` has something to do."""
        return next(iter(self._partial.values())).expires if self._partial else None

    def expire(self, now: float) -> None:
        """Give up packets whose time is over."""
        while self._partial:
            key, partial = next(iter(self._partial.items()))
            if partial.expires > now:
                return
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        self.held -= self._partial.pop(key).charged


def _whole(view: IpPacket, partial: _Partial) -> IpPacket | None:
    body = b"".join(piece for _, piece in partial.pieces)
    room = ip.MAX_PACKET - 20 if view.version == 4 else ip.MAX_PACKET
    if len(body) > room:
        return None
    header = ip.packet_for(view.addresses, view.protocol, len(body))
    packet = vnet.NO_OFFLOAD + header + body
    start = vnet.HEADER_LEN + len(header)
    return IpPacket(packet, view.addresses, view.protocol, start, len(packet))


def split(addresses: bytes, protocol: int, payload: bytes, mtu: int, identification: int) -> list[list[bytes]]:
    """Cut an IP payload that is larger than the device into fragments, ready to be written."""
    v4 = len(addresses) == 8
    room = (mtu - 20 if v4 else mtu - 48) & ~7
    packets = []
    for offset in range(0, len(payload), room):
        piece = payload[offset : offset + room]
        more = offset + room < len(payload)
        if v4:
            word = (0x2000 if more else 0) | offset >> 3
            header = ip.build4(addresses, protocol, len(piece), identification=identification & 0xFFFF, fragment=word)
        else:
            header = ip.build6(addresses, ip.FRAGMENT_PROTOCOL, 8 + len(piece))
            header += ip.build6_fragment(protocol, offset, more, identification & 0xFFFFFFFF)
        packets.append([vnet.NO_OFFLOAD + header, piece])
    return packets
