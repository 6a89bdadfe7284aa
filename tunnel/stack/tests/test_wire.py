"""Packets that this stack builds, dissected by scapy; packets that scapy builds, read by this stack."""

from __future__ import annotations

import random
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    defragment6,
    fragment6,
)
from scapy.packet import Packet as ScapyPacket

from tunnel.endpoint import Refusal
from tunnel.stack import icmp, ip, segment, vnet
from tunnel.stack.fragments import Fragments, split
from tunnel.stack.segment import ACK, PSH, SYN, SegmentBuilder
from tunnel.stack.vocabulary import Packet

V4 = bytes([10, 0, 0, 1, 192, 168, 255, 254])
V6 = bytes.fromhex("fd000000000000000000000000000001fd99ffffffffffffffffffffffffffff")
FAMILIES = pytest.mark.parametrize("addresses", [V4, V6], ids=["v4", "v6"])


def complete(packet: Packet) -> tuple[bytes, bytes]:
    """(virtio header, IP packet) with the checksum completed as the kernel would (virtio 1.2, 5.1.6.2)."""
    whole = b"".join(bytes(piece) for piece in packet)
    header, body = whole[: vnet.HEADER_LEN], bytearray(whole[vnet.HEADER_LEN :])
    flags, _, _, _, start, offset = struct.unpack("=BBHHHH", header)
    if flags & vnet.NEEDS_CSUM:
        total = sum(struct.unpack(f"!{len(body[start:]) // 2}H", body[start:][: len(body[start:]) & ~1]))
        if len(body[start:]) & 1:
            total += body[-1] << 8
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", body, start + offset, (~total & 0xFFFF) or 0xFFFF)
    return header, bytes(body)


def dissect(packet: Packet) -> ScapyPacket:
    """By scapy, after a check that every length and checksum is what scapy would have put there."""
    _, body = complete(packet)
    layer = IP if body[0] >> 4 == 4 else IPv6
    dissected = layer(body)
    again = layer(body)
    for part in (IP, TCP, UDP, ICMP, ICMPv6DestUnreach, ICMPv6EchoReply):
        if part in again:  # what an ICMP error quotes are other classes (TCPerror)
            for field in ("chksum", "cksum", "len"):
                if field in again[part].fields:
                    del again[part].fields[field]
    assert bytes(again) == body
    return dissected


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 1459, 1460])
def test_segments(addresses: bytes, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    builder = SegmentBuilder(addresses, 443, 50000, 1460)
    header = builder.build(0x1_FFFF_FFFF, 7, ACK | PSH, 512, size)
    packet = dissect([header, payload])
    tcp = packet[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.window) == (443, 50000, 0xFFFFFFFF, 7, 512)
    assert tcp.flags == "PA"
    assert bytes(tcp.payload) == payload
    assert header[1] == vnet.GSO_NONE


def test_ten_thousand_headers_have_right_sums() -> None:
    source = random.Random(1)
    for n in range(10_000):
        addresses = source.randbytes(8 if n & 1 else 32)
        builder = SegmentBuilder(addresses, source.getrandbits(16), source.getrandbits(16), 65535)
        size = source.choice([0, 1, 65495 if n & 1 else 65515])
        header = builder.build(source.getrandbits(32), source.getrandbits(32), ACK, source.getrandbits(16), size)
        if n & 1:
            assert int.from_bytes(header[10:30], "big") % 0xFFFF == 0
        pseudo = int.from_bytes(addresses, "big") + 6 + 20 + size
        assert int.from_bytes(header[-4:-2], "big") % 0xFFFF == pseudo % 0xFFFF


@FAMILIES
def test_a_super_segment_says_how_to_cut_it(addresses: bytes) -> None:
    header = SegmentBuilder(addresses, 443, 50000, 1460).build(1, 2, ACK, 3, 50_000)
    start = 20 if addresses == V4 else 40
    kind = vnet.GSO_TCPV4 if addresses == V4 else vnet.GSO_TCPV6
    assert struct.unpack("=BBHHHH", header[:10]) == (vnet.NEEDS_CSUM, kind, start + 20, 1460, start, 16)
    assert vnet.gso(header) == (kind, 1460)


@FAMILIES
def test_syn_options_both_ways(addresses: bytes) -> None:
    header = SegmentBuilder(addresses, 1, 2, 1460).build(1, 2, SYN | ACK, 3, 0, segment.syn_options(1460, 5))
    assert dict(dissect([header])[TCP].options[:1] + dissect([header])[TCP].options[2:]) == {
        "MSS": 1460,
        "WScale": 5,
    }
    start = len(header) - 8
    assert segment.parse_syn_options(header, start, len(header)) == segment.SynOptions(1460, 5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"", (None, None)),
        (b"\x02\x04\x05\xb4", (1460, None)),
        (b"\x01\x01\x03\x03\x07", (None, 7)),
        (b"\x03\x03\xff", (None, 14)),
        (b"\x00\x02\x04\x05\xb4", (None, None)),
        (b"\x02\x04\x05", (None, None)),
        (b"\x02", (None, None)),
        (b"\x02\x00\x05\xb4", (None, None)),
        (b"\x02\x03\x05\x03\x03\x02", (None, 2)),
        (b"\x08\x0a12345678\x02\x04\x00\x40", (64, None)),
    ],
)
def test_options_by_example(options: bytes, expected: tuple[int | None, int | None]) -> None:
    assert segment.parse_syn_options(b"?" + options, 1, 1 + len(options)) == expected


def view_of(packet: ScapyPacket) -> ip.IpPacket | None:
    return ip.parse(vnet.NO_OFFLOAD + bytes(packet))


@pytest.mark.parametrize(
    ("packet", "protocol", "fragment_at"),
    [
        (IP(dst="1.2.3.4") / TCP(), ip.TCP, 0),
        (IP(dst="1.2.3.4", options=b"\x01" * 8) / UDP() / b"data", ip.UDP, 0),
        (IP(dst="1.2.3.4", frag=10, proto=17) / (b"x" * 8), ip.UDP, 80),
        (IPv6(dst="fd00::1") / TCP(), ip.TCP, 0),
        (IPv6(dst="fd00::1") / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / b"data", ip.UDP, 0),
        (IPv6(dst="fd00::1") / IPv6ExtHdrRouting() / TCP(), ip.TCP, 0),
        (IPv6(dst="fd00::1") / IPv6ExtHdrFragment(offset=5, nh=17) / (b"x" * 16), ip.UDP, 40),
        (IPv6(dst="fd00::1") / IPv6ExtHdrFragment(offset=0, m=0, nh=17) / UDP() / b"atomic", ip.UDP, 0),
    ],
    ids=lambda value: value.summary() if isinstance(value, ScapyPacket) else None,
)
def test_views(packet: ScapyPacket, protocol: int, fragment_at: int) -> None:
    view = view_of(packet)
    assert view is not None
    assert (view.protocol, view.fragment) == (protocol, fragment_at)
    assert view.end == len(bytes(packet)) + vnet.HEADER_LEN
    assert view.version == packet.version


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(IP(dst="1.2.3.4") / TCP())[:19],
        bytes(IP(dst="1.2.3.4", ihl=4) / TCP()),
        bytes(IP(dst="1.2.3.4", len=41) / TCP()),
        bytes(IP(dst="1.2.3.4", len=10) / TCP()),
        bytes(IP(dst="224.0.0.251") / UDP()),
        bytes(IP(dst="255.255.255.255") / UDP()),
        bytes(IPv6(dst="ff02::fb") / UDP()),
        bytes(IPv6(dst="fd00::1", plen=21) / TCP()),
        bytes(IPv6(dst="fd00::1"))[:39],
        bytes(IPv6(dst="fd00::1", nh=0, plen=8) / (b"\x06\x09" + bytes(6))),
        bytes(IPv6(dst="fd00::1", nh=0, plen=80)) + bytes(80),
        b"\x75" + bytes(40),
    ],
)
def test_garbage_has_no_view(packet: bytes) -> None:
    assert ip.parse(vnet.NO_OFFLOAD + packet) is None


@FAMILIES
@pytest.mark.parametrize("refusal", list(Refusal))
def test_unreachable_comes_from_the_destination(addresses: bytes, refusal: Refusal) -> None:
    v4 = addresses == V4
    quote = bytes(
        (IP(src="10.0.0.1", dst="192.168.255.254") if v4 else IPv6(src="fd00::1", dst="fd99::2"))
        / TCP(sport=50000, dport=80, flags="S")
    )
    packet = dissect(icmp.unreachable(quote, addresses, refusal))
    assert packet.src == ("192.168.255.254" if v4 else "fd99:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
    assert packet.dst == ("10.0.0.1" if v4 else "fd00::1")
    message = packet[ICMP] if v4 else packet[ICMPv6DestUnreach]
    codes = {Refusal.REFUSED: (3, 4), Refusal.PROHIBITED: (13, 3)}
    assert message.code == codes.get(refusal, (1, 3))[0 if v4 else 1]
    assert message.type == (3 if v4 else 1)
    assert bytes(message).endswith(quote)


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 57])
def test_echo(addresses: bytes, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    request = (
        IP(src="10.0.0.1", dst="192.168.1.1") / ICMP(id=7, seq=9) / payload
        if addresses == V4
        else IPv6(src="fd00::1", dst="fd99::1") / ICMPv6EchoRequest(id=7, seq=9, data=payload)
    )
    view = view_of(request)
    assert view is not None
    out: list[Packet] = []
    echo = icmp.parse_echo(view, out.append)
    assert echo is not None
    assert (echo.source, echo.destination, bytes(echo.payload)) == (request.src, request.dst, payload)
    assert not out
    echo.reply()
    answer = dissect(out[0])
    assert (answer.src, answer.dst) == (request.dst, request.src)
    message = answer[ICMP] if addresses == V4 else answer[ICMPv6EchoReply]
    assert (message.id, message.seq) == (7, 9)
    assert bytes(answer).endswith(payload)


def test_a_reply_is_no_request() -> None:
    for packet in (IP(dst="1.2.3.4") / ICMP(type=0), IPv6(dst="fd00::1") / ICMPv6EchoReply()):
        view = view_of(packet)
        assert view is not None
        assert icmp.parse_echo(view, lambda packet: None) is None


@pytest.mark.parametrize("mtu", [576, 1280, 1500, 9000])
@pytest.mark.parametrize("size", [9001, 30_000, 65_507])
def test_fragments_that_scapy_puts_together(mtu: int, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    parts = [IP(complete(part)[1]) for part in split(V4, ip.UDP, payload, mtu, 99)]
    assert all(len(part) <= mtu for part in parts)
    whole = defragment(parts)
    assert len(whole) == 1
    assert bytes(whole[0].payload) == payload
    if mtu >= 1280:
        parts = [IPv6(complete(part)[1]) for part in split(V6, ip.UDP, payload, mtu, 99)]
        assert all(len(part) <= mtu for part in parts)
        assert bytes(defragment6(parts).payload) == payload


@pytest.mark.parametrize("order", ["first", "last", "shuffled", "doubled"])
def test_fragments_that_scapy_cuts(order: str) -> None:
    payload = random.Random(2).randbytes(9000)
    v4 = fragment(IP(dst="1.2.3.4", id=5) / UDP(sport=1, dport=2) / payload, 1000)
    v6 = fragment6(IPv6(dst="fd00::1") / IPv6ExtHdrFragment(id=5) / UDP(sport=1, dport=2) / payload, 1280)
    for parts in (list(v4), list(v6)):
        if order == "last":
            parts.reverse()
        elif order == "shuffled":
            random.Random(3).shuffle(parts)
        elif order == "doubled":
            parts = [part for part in parts for _ in (0, 1)]
        fragments = Fragments(1 << 20, 128, 5.0)
        whole = []
        for part in parts:
            view = view_of(part)
            assert view is not None
            assert view.is_fragment
            whole.append(fragments.add(view, 0.0))
        done = [view for view in whole if view is not None]
        assert len(done) == 1
        assert done[0].packet[done[0].start + 8 : done[0].end] == payload
        if order != "doubled":
            assert fragments.held == 0
