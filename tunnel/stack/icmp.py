"""ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and destination unreachable in the name of the destination."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from tunnel.endpoint import Refusal
from tunnel.stack import ip, vnet
from tunnel.stack.address import host_text
from tunnel.stack.checksum import checksum, pseudo_sum
from tunnel.stack.ip import IpPacket
from tunnel.stack.vocabulary import Packet

_HEADER: Final = struct.Struct("!BBHI")

_ECHO_REQUEST4: Final = 8
_ECHO_REPLY4: Final = 0
_UNREACHABLE4: Final = 3
_ECHO_REQUEST6: Final = 128
_ECHO_REPLY6: Final = 129
_UNREACHABLE6: Final = 1

_HOST4: Final = 1
_PORT4: Final = 3
_PROHIBITED4: Final = 13
_ADDRESS6: Final = 3
_PORT6: Final = 4

QUOTE: Final = 512
"""Bytes of the offending packet that are quoted: enough for any header, within the 576 of RFC 1812, 4.3.2.3."""


def unreachable_code(refusal: Refusal, *, v4: bool) -> int:
    """The code that makes the caller see ECONNREFUSED for REFUSED and EHOSTUNREACH for everything else.

    ICMPv6 has "administratively prohibited" too, but Linux reports it as EACCES, which nobody expects of connect.
    """
    if refusal is Refusal.REFUSED:
        return _PORT4 if v4 else _PORT6
    if v4:
        return _PROHIBITED4 if refusal is Refusal.PROHIBITED else _HOST4
    return _ADDRESS6


def unreachable(quote: bytes, addresses: bytes, refusal: Refusal) -> Packet:
    """Destination unreachable, sent by the destination itself (the TUN's own address would be a martian).

    `quote`: the start of the offending IP packet; `addresses`: its source and destination.
    """
    v4 = len(addresses) == 8
    kind = _UNREACHABLE4 if v4 else _UNREACHABLE6
    return _message(ip.reverse(addresses), kind, unreachable_code(refusal, v4=v4), 0, quote[:QUOTE])


def _message(addresses: bytes, kind: int, code: int, rest: int, body: bytes | memoryview) -> Packet:
    v4 = len(addresses) == 8
    length = _HEADER.size + len(body)
    protocol = ip.ICMP if v4 else ip.ICMPV6
    initial = 0 if v4 else pseudo_sum(addresses, protocol, length)
    check = checksum((_HEADER.pack(kind, code, 0, rest), body), initial)
    header = _HEADER.pack(kind, code, check, rest)
    return [vnet.NO_OFFLOAD + ip.packet_for(addresses, protocol, length) + header, body]


class EchoRequest:
    """A ping. Reply only if the destination really answered one."""

    def __init__(self, view: IpPacket, rest: int, output: Callable[[Packet], None]) -> None:
        self._addresses = view.addresses
        self._rest = rest
        self._body = memoryview(view.packet)[view.start + _HEADER.size : view.end]
        self._output = output

    @property
    def source(self) -> str:
        """Who asks."""
        return host_text(self._addresses[: len(self._addresses) >> 1])

    @property
    def destination(self) -> str:
        """Who is asked."""
        return host_text(self._addresses[len(self._addresses) >> 1 :])

    @property
    def payload(self) -> memoryview:
        """What the reply has to carry."""
        return self._body

    def reply(self) -> None:
        """Answer in the destination's name."""
        kind = _ECHO_REPLY4 if len(self._addresses) == 8 else _ECHO_REPLY6
        self._output(_message(ip.reverse(self._addresses), kind, 0, self._rest, self._body))


def parse_echo(view: IpPacket, output: Callable[[Packet], None]) -> EchoRequest | None:
    """An echo request, if that is what this is."""
    if view.end - view.start < _HEADER.size:
        return None
    kind, code, _, rest = _HEADER.unpack_from(view.packet, view.start)
    wanted = _ECHO_REQUEST4 if view.version == 4 else _ECHO_REQUEST6
    return EchoRequest(view, rest, output) if (kind, code) == (wanted, 0) else None


def parse_port_unreachable(view: IpPacket) -> tuple[bytes, int, int, int] | None:
    """Which packet of ours met a closed port: its addresses, protocol, source and destination port."""
    if view.end - view.start < _HEADER.size:
        return None
    kind, code, _, _ = _HEADER.unpack_from(view.packet, view.start)
    v4 = view.version == 4
    if (kind, code) != ((_UNREACHABLE4, _PORT4) if v4 else (_UNREACHABLE6, _PORT6)):
        return None
    start = view.start + _HEADER.size
    quoted = view.packet[start : view.end]
    header = (quoted[0] & 15) << 2 if v4 and quoted else 40
    if len(quoted) < header + 4 or header < 20:
        return None
    addresses = quoted[12:20] if v4 else quoted[8:40]
    source, destination = struct.unpack_from("!HH", quoted, header)
    return addresses, quoted[9] if v4 else quoted[6], source, destination
