"""What the laptop's programs see, with a link whose far side the test plays."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tpd.session.outbound import DIAL_LIMIT, Outbound
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.proto import open_pb2
from tunnel.stack import Address

DNS = "198.19.254.2"


class Timers:
    """Virtual `call_later`."""

    def __init__(self) -> None:
        self.waiting: list[Timer] = []

    def __call__(self, delay: float, call: Callable[[], None]) -> Timer:
        timer = Timer(delay, call, self)
        self.waiting.append(timer)
        return timer


class Timer:
    def __init__(self, delay: float, call: Callable[[], None], owner: Timers) -> None:
        self.delay, self.call, self._owner = delay, call, owner

    def cancel(self) -> None:
        if self in self._owner.waiting:
            self._owner.waiting.remove(self)


class FarFlow:
    """A flow as its owner sees it; what it was told is kept."""

    def __init__(self, kind: FlowKind, body: bytes, handler: FlowHandler) -> None:
        self.kind, self.handler = kind, handler
        self.dial = open_pb2.Open.FromString(body).dial
        self.sent = b""
        self.datagrams: list[bytes] = []
        self.ended = ""

    def send(self, data: memoryview) -> int:
        self.sent += data
        return len(data)

    def send_datagram(self, data: memoryview) -> None:
        self.datagrams.append(bytes(data))

    def send_eof(self) -> None:
        self.ended = "eof"

    def reset(self) -> None:
        self.ended = "reset"

    def consumed(self, count: int) -> None:
        """Not of interest here."""


class FarLink:
    """Opens nothing: the test answers. `refuse`: at once, as a process at its limit does."""

    def __init__(self) -> None:
        self.flows: list[FarFlow] = []
        self.refuse: Refusal | None = None

    def open(self, kind: FlowKind, body: bytes, handler: FlowHandler) -> Flow:
        flow = FarFlow(kind, body, handler)
        self.flows.append(flow)
        if self.refuse is not None:
            handler.on_refused(self.refuse, "")
        return flow  # type: ignore[return-value]  # what the code under test uses of a flow is all there


class Connection:
    """A SYN of the laptop."""

    def __init__(self, host: str, port: int) -> None:
        self.local = Address(host, port)
        self.handler: EndpointHandler | None = None
        self.outcome: object = None
        self.received = b""

    def seen(self) -> object:
        """What the program sees now."""
        return self.outcome

    def attach(self, handler: EndpointHandler) -> None:
        self.handler = handler

    def accept(self) -> None:
        self.outcome = "accepted"

    def refuse(self, refusal: Refusal) -> None:
        self.outcome = refusal

    def send(self, data: memoryview) -> int:
        self.received += data
        return len(data)

    def send_eof(self) -> None:
        self.outcome = "eof"

    def reset(self) -> None:
        self.outcome = "reset"

    def consumed(self, count: int) -> None:
        """Not of interest here."""

    def close(self) -> None:
        self.outcome = "closed"


class Laptop:
    def __init__(self, *, connected: bool = True) -> None:
        self.link = FarLink()
        self.timers = Timers()
        self.questions: list[bytes] = []
        self.outbound = Outbound(
            link=lambda: self.link if connected else None, dns_address=DNS, ask=self._ask, later=self.timers
        )

    def _ask(self, message: bytes, tcp: bool, reply: Callable[[bytes], None]) -> bool:
        self.questions.append(message)
        reply(b"answer to " + message)
        return message != b"garbage"

    def connect(self, host: str, port: int) -> Connection:
        connection = Connection(host, port)
        connection.attach(self.outbound.on_tcp(connection))  # type: ignore[arg-type]  # as FarLink.open
        return connection


def test_the_syn_waits_for_the_far_side_and_then_bytes_flow_both_ways() -> None:
    laptop = Laptop()
    connection = laptop.connect("10.96.0.1", 443)
    (flow,) = laptop.link.flows
    assert (flow.kind, flow.dial.port, flow.dial.transport) == (FlowKind.STREAM, 443, open_pb2.TCP)
    assert flow.dial.address == bytes([10, 96, 0, 1])
    assert connection.seen() is None
    flow.handler.on_opened()
    assert connection.seen() == "accepted"
    assert laptop.timers.waiting == []
    assert connection.handler is not None
    connection.handler.on_data(memoryview(b"hello"))
    assert flow.sent == b"hello"
    flow.handler.on_data(memoryview(b"world"))
    assert connection.received == b"world"
    connection.handler.on_eof()
    assert flow.ended == "eof"


@pytest.mark.parametrize(
    ("refusal", "seen"),
    [
        (Refusal.REFUSED, Refusal.REFUSED),
        (Refusal.UNREACHABLE, Refusal.UNREACHABLE),
        (Refusal.PROHIBITED, Refusal.PROHIBITED),
        (Refusal.GONE, Refusal.UNREACHABLE),
    ],
)
def test_a_refusal_is_what_the_program_sees(refusal: Refusal, seen: Refusal) -> None:
    laptop = Laptop()
    connection = laptop.connect("10.96.0.1", 81)
    laptop.link.flows[0].handler.on_refused(refusal, "")
    assert connection.seen() is seen
    assert laptop.timers.waiting == []


def test_a_refusal_at_once_leaves_no_timer() -> None:
    laptop = Laptop()
    laptop.link.refuse = Refusal.BUSY
    assert laptop.connect("10.96.0.1", 81).outcome is Refusal.BUSY
    assert laptop.timers.waiting == []


def test_nobody_answers_within_the_dial_limit() -> None:
    laptop = Laptop()
    connection = laptop.connect("10.96.0.1", 81)
    (timer,) = laptop.timers.waiting
    assert timer.delay == DIAL_LIMIT
    timer.call()
    assert connection.seen() is Refusal.TIMEOUT
    assert laptop.link.flows[0].ended == "reset"


def test_the_program_gives_up() -> None:
    laptop = Laptop()
    connection = laptop.connect("10.96.0.1", 81)
    assert connection.handler is not None
    connection.handler.on_closed(Broken.RESET)
    assert laptop.link.flows[0].ended == "reset"
    assert laptop.timers.waiting == []


def test_without_a_session_nothing_is_reachable() -> None:
    assert Laptop(connected=False).connect("10.96.0.1", 80).outcome is Refusal.UNREACHABLE


def test_our_own_address_has_only_the_resolver() -> None:
    laptop = Laptop()
    assert laptop.connect(DNS, 80).outcome is Refusal.REFUSED
    connection = laptop.connect(DNS, 53)
    assert connection.seen() == "accepted"
    assert connection.handler is not None
    connection.handler.on_data(memoryview(struct.pack("!H", 2) + b"q1" + struct.pack("!H", 2) + b"q"))
    connection.handler.on_data(memoryview(b"2"))
    assert connection.received == b"\0\x0canswer to q1\0\x0canswer to q2"
    connection.handler.on_eof()
    assert connection.seen() == "eof"
    assert laptop.link.flows == []


def test_garbage_to_the_resolver_ends_that_connection() -> None:
    laptop = Laptop()
    connection = laptop.connect(DNS, 53)
    assert connection.handler is not None
    connection.handler.on_data(memoryview(struct.pack("!H", 7) + b"garbage"))
    assert connection.seen() == "reset"


class Association(Connection):
    """The first datagram between two ports of the laptop."""


def test_datagrams_go_and_come_until_one_side_ends_it() -> None:
    laptop = Laptop()
    association = Association("fd00::1", 5353)
    handler = laptop.outbound.on_udp(association)  # type: ignore[arg-type]  # as FarLink.open
    (flow,) = laptop.link.flows
    assert (flow.kind, flow.dial.transport, len(flow.dial.address)) == (FlowKind.DATAGRAM, open_pb2.UDP, 16)
    handler.on_datagram(memoryview(b"one"))
    assert flow.datagrams == [b"one"]
    flow.handler.on_datagram(memoryview(b"two"))
    assert association.received == b"two"
    handler.on_expired()
    assert flow.ended == "reset"


def test_a_datagram_that_nobody_takes_is_refused() -> None:
    laptop = Laptop()
    association = Association("10.96.0.1", 9)
    laptop.outbound.on_udp(association)  # type: ignore[arg-type]  # as FarLink.open
    laptop.link.flows[0].handler.on_refused(Refusal.REFUSED, "")
    assert association.outcome is Refusal.REFUSED


def test_questions_over_udp() -> None:
    laptop = Laptop()
    association = Association(DNS, 53)
    handler = laptop.outbound.on_udp(association)  # type: ignore[arg-type]  # as FarLink.open
    handler.on_datagram(memoryview(b"q"))
    assert association.received == b"answer to q"
