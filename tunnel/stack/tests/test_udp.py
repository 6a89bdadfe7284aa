"""UDP associations by example."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet as ScapyPacket

from tunnel.endpoint import Refusal
from tunnel.stack import Limits, vnet
from tunnel.stack.tests.conversation import Conversation


def datagram(data: bytes, *, sport: int = 5000, dport: int = 53) -> ScapyPacket:
    return IP(src="10.99.0.1", dst="10.99.1.1") / UDP(sport=sport, dport=dport) / data


def put(c: Conversation, packet: ScapyPacket, header: bytes = vnet.NO_OFFLOAD) -> None:
    c.stack.receive(header + bytes(packet), c.now)


def test_an_association_per_source_and_destination() -> None:
    c = Conversation()
    put(c, datagram(b"a"))
    put(c, datagram(b"b"))
    put(c, datagram(b"c", sport=5001))
    put(c, datagram(b""))
    assert [a.calls for a in c.associations] == [[b"a", b"b", b""], [b"c"]]
    assert c.associations[0].association.local == ("10.99.1.1", 53)
    assert c.associations[0].association.remote == ("10.99.0.1", 5000)


def test_wrong_sums_and_lengths_are_dropped() -> None:
    c = Conversation()
    bad = bytearray(bytes(datagram(b"abcdef")))
    bad[-1] ^= 1
    c.stack.receive(vnet.NO_OFFLOAD + bytes(bad), c.now)
    short = IP(src="10.99.0.1", dst="10.99.1.1") / UDP(sport=1, dport=2, len=100) / b"abc"
    put(c, short)
    put(c, IP(src="10.99.0.1", dst="10.99.1.1") / UDP(sport=1, dport=2, len=7) / b"abc")
    assert c.associations == []
    put(c, IP(src="10.99.0.1", dst="10.99.1.1") / UDP(sport=1, dport=2, chksum=0) / b"no sum")
    assert c.associations[0].calls == [b"no sum"]


def test_the_idle_expire_and_use_in_either_direction_counts() -> None:
    c = Conversation(Limits(udp_idle=60))
    put(c, datagram(b"a"))
    c.passes(50)
    put(c, datagram(b"b", sport=5001))
    c.passes(9)
    c.associations[0].association.send(b"answer")
    assert c.hears() == ["udp 6"]
    c.passes(55)
    assert [a.calls for a in c.associations] == [[b"a"], [b"b", "expired"]]
    c.passes(70)
    assert [a.calls[-1] for a in c.associations] == ["expired", "expired"]
    assert c.stack.udp_associations == 0
    c.associations[0].association.send(b"too late")
    assert c.hears() == []


def test_the_least_recently_used_makes_room() -> None:
    c = Conversation(Limits(max_associations=3))
    for port in (1, 2, 3):
        put(c, datagram(b"x", sport=port))
    put(c, datagram(b"y", sport=1))
    put(c, datagram(b"x", sport=4))
    assert [a.calls[-1] for a in c.associations] == [b"y", "expired", b"x", b"x"]
    assert c.stack.udp_associations == 3


def test_refuse_and_close_end_it_without_a_call() -> None:
    c = Conversation()
    for refusal, answer in ((Refusal.REFUSED, "icmp 3 3"), (Refusal.PROHIBITED, "icmp 3 13")):
        put(c, datagram(b"a"))
        c.associations[-1].association.refuse(refusal)
        c.associations[-1].association.refuse(refusal)
        assert c.hears() == [answer]
    put(c, datagram(b"a"))
    c.associations[-1].association.close()
    put(c, datagram(b"b"))
    assert [a.calls for a in c.associations] == [[b"a"], [b"a"], [b"a"], [b"b"]]
    assert c.hears() == []


def test_segmentation_offload_is_undone() -> None:
    c = Conversation()
    header = vnet.gso_header(vnet.GSO_UDP_L4, 28, 3, 20, 6)
    put(c, datagram(b"abcdefgh"), header)
    assert c.associations[0].calls == [b"abc", b"def", b"gh"]


def test_a_closed_port_on_the_laptop_ends_the_association() -> None:
    c = Conversation()
    put(c, datagram(b"a"))
    ours = IP(src="10.99.1.1", dst="10.99.0.1") / UDP(sport=53, dport=5000)
    put(c, IP(src="10.99.0.1", dst="10.99.1.1") / ICMP(type=3, code=1) / ours)
    assert c.associations[0].calls == [b"a"]
    put(c, IP(src="10.99.0.1", dst="10.99.1.1") / ICMP(type=3, code=3) / ours)
    assert c.associations[0].calls == [b"a", "expired"]
    put(c, IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=7, dport=8) / b"six")
    ours6 = IPv6(src="fd00::2", dst="fd00::1") / UDP(sport=8, dport=7)
    put(c, IPv6(src="fd00::1", dst="fd00::2") / ICMPv6DestUnreach(code=4) / ours6)
    assert c.associations[1].calls == [b"six", "expired"]


def test_what_cannot_be_sent_is_dropped() -> None:
    c = Conversation()
    put(c, datagram(b"a"))
    c.associations[0].association.send(bytes(65508))
    assert c.hears() == []
    c.associations[0].association.send(bytes(65507))
    assert c.hears() == ["udp 65507"]


def test_a_small_device_gets_fragments() -> None:
    c = Conversation(Limits(mtu=1280))
    put(c, datagram(b"a"))
    c.associations[0].association.send(bytes(1252))
    assert c.hears() == ["udp 1252"]
    c.associations[0].association.send(bytes(1253))
    assert len(c.hears()) == 2
