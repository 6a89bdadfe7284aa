"""Whatever the kernel writes, the stack neither raises nor leaks."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

from tunnel.endpoint import Refusal
from tunnel.stack import Limits, vnet
from tunnel.stack.state import FINISHED
from tunnel.stack.tests.conversation import Conversation

_TCP = TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)])
SEEDS = [
    bytes(vnet.NO_OFFLOAD) + bytes(packet)
    for packet in (
        IP(dst="10.99.1.1") / _TCP,
        IP(dst="10.99.1.1", options=b"\x01" * 4) / UDP(sport=1, dport=2) / b"hello",
        IP(dst="10.99.1.1", flags="MF") / UDP(sport=1, dport=2) / b"hello!!!",
        IP(dst="10.99.1.1") / ICMP() / b"ping",
        IP(dst="10.99.1.1") / ICMP(type=3, code=3) / IP() / UDP(),
        IPv6(dst="fd00::1") / _TCP,
        IPv6(dst="fd00::1") / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / b"hello",
        IPv6(dst="fd00::1") / IPv6ExtHdrFragment(m=1, nh=17) / (b"x" * 16),
        IPv6(dst="fd00::1") / ICMPv6EchoRequest(data=b"ping"),
        IPv6(dst="fd00::1") / ICMPv6DestUnreach(code=4) / IPv6() / UDP(),
    )
]


def feed(packets: list[bytes]) -> None:
    c = Conversation()
    for packet in packets:
        c.stack.receive(packet, c.now)
        for listener in c.listeners:
            listener.connection.accept()
        c.hears_anything()
        c.now += 0.3
        c.stack.on_timeout(c.now)
    c.stack.reset_all()
    c.hears_anything()
    assert c.stack.tcp_connections == 0
    assert c.stack.half_open == 0
    assert c.stack.buffers_free == c.stack.limits.shared_buffer


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes(packets: list[bytes]) -> None:
    feed(packets)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(SEEDS),
            st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=4),
            st.integers(-60, 0),
        ),
        max_size=6,
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_sound_packets_with_some_bytes_changed_or_cut_off(
    packets: list[tuple[bytes, list[tuple[int, int]], int]],
) -> None:
    changed = []
    for packet, changes, cut in packets:
        body = bytearray(packet)
        for at, value in changes:
            body[at % len(body)] = value
        # The kernel vouches for the checksum, so that the changes get through to the protocols.
        body[0] |= vnet.DATA_VALID
        changed.append(bytes(body[: len(body) + cut]))
    feed(changed)


def test_random_walks_of_a_connection() -> None:
    """Any segment near the window, with any owner: every rule of `Endpoint` holds, and all memory comes back."""
    for seed in range(400):
        walk(seed)


def walk(seed: int) -> None:
    source = random.Random(seed)
    c = Conversation(Limits(base_buffer=4000, max_buffer=16000, shared_buffer=20000))
    near = [-1, 0, 0, 0, 1, 3, 500, 1460, 4000, 70000]
    sent = 0
    for _ in range(80):
        action = source.randrange(12)
        live = [listener for listener in c.listeners if listener.connection.state not in FINISHED]
        if action == 0 or not c.listeners:
            c.syn(irs=1000 + source.choice([0, 0, 1, 100000]))
        elif action < 7:
            flags = source.choice(["A", "A", "A", "AF", "R", "S", "SA", "", "FA", "RA"])
            got = len(c.listener.got)
            c.says(
                flags,
                got + source.choice(near),
                source.choice([0, sent, sent, sent + 1, source.randint(0, sent + 1)]),
                bytes(source.choice([0, 0, 1, 700, 1460, 20000])),
                window=source.choice([0, 128, 2560, 64000]),
            )
        elif action == 7:
            c.passes(source.choice([0.1, 1, 20]))
        elif live:
            connection = source.choice(live).connection
            match source.randrange(6):
                case 0:
                    connection.accept()
                case 1:
                    sent += connection.send(memoryview(bytes(source.choice([1, 100, 5000]))))
                case 2:
                    connection.send_eof()
                case 3:
                    connection.consumed(source.randrange(1000))
                case 4 if source.random() < 0.2:
                    connection.reset()
                case 5 if source.random() < 0.2:
                    connection.refuse(Refusal.UNREACHABLE)
        c.hears_anything()
    for listener in c.listeners:
        assert len(listener.closed) <= 1
        assert "closed" not in "".join(listener.calls[:-1])
        assert listener.calls.count("eof") <= 1
        if "eof" in listener.calls:
            assert not any(call.startswith("data") for call in listener.calls[listener.calls.index("eof") :])
    c.stack.reset_all()
    c.hears_anything()
    assert (c.stack.tcp_connections, c.stack.half_open) == (0, 0)
    assert c.stack.buffers_free == 20000
