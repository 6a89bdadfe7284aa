"""What a peer that breaks the rules gets, limits, and the handshake's refusals: one link against hand-made messages."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux import frames, handshake
from tunnel.mux.errors import GoAway, HelloRefused, LinkEnded, PeerLeft, RemoteProtocolError
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.frames import Type
from tunnel.mux.handshake import Hello, Limits
from tunnel.mux.lane import Lane
from tunnel.mux.link import Link, Role
from tunnel.mux.queries import MOST, MOST_BYTES, Query
from tunnel.mux.registry import MOST_PER_SESSION, Bounds, Registry
from tunnel.mux.window import INITIAL, LEAST, UNIT, Budget
from tunnel.testing.peers import Listener, Recorder


class Shell:
    """Remembers what the link asked for."""

    def __init__(self) -> None:
        self.faults: list[Exception] = []
        self.wanted: list[Lane] = []

    def on_ready(self, lane: Lane) -> None:
        pass

    def on_want(self, lane: Lane) -> None:
        self.wanted.append(lane)

    def on_suspect(self, lane: Lane) -> None:
        pass

    def on_timer(self, at: float) -> None:
        pass

    def on_fault(self, error: Exception) -> None:
        self.faults.append(error)


HELLO = Hello(1, 1, "test", "session", b"c" * 16, b"", Lane.INTERACTIVE, 1, 0, Limits())


class Rig:
    """A server's link with a carrier, and a peer that writes frames by hand."""

    def __init__(self, limits: Limits | None = None, budget: Budget | None = None) -> None:
        self.now = 0.0
        self.shell = Shell()
        self.listener = Listener()
        self.link = Link(
            role=Role.SERVER,
            session="session",
            instance=b"s" * 16,
            acceptor=self.listener,
            shell=self.shell,
            clock=lambda: self.now,
            budget=budget or Budget(),
            limits=limits,
        )
        self.link.answer(HELLO)
        self._numbers = itertools.count(1)

    def receive(self, *batch: bytes, control: tuple[bytes, ...] = ()) -> None:
        self.link.receive(Lane.INTERACTIVE, frames.message(next(self._numbers) if batch else 0, control, batch))

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """All numbered frames the link has to send now."""
        result: list[tuple[int, int, int, bytes]] = []
        while (message := self.link.next_batch(Lane.INTERACTIVE)) is not None:
            result += owned(frames.parse(frames.split(message)[2], numbered=True))
        return result

    def flood(self, message: Callable[[int], tuple[tuple[bytes, ...], tuple[bytes, ...]]]) -> None:
        """Receive 10,000 messages (batch, control) without sending anything."""
        for step in range(10000):
            batch, control = message(step)
            self.receive(*batch, control=control)

    def opened(self, number: int = 1) -> Recorder:
        self.receive(frames.frame(Type.OPEN, number, FlowKind.STREAM))
        self.sent()
        return self.listener.flows[number][1]


def owned(parsed: list[frames.Frame]) -> list[tuple[int, int, int, bytes]]:
    """Frames with payloads to compare."""
    return [(kind, detail, subject, bytes(payload)) for kind, detail, subject, payload in parsed]


DATA = frames.frame(Type.DATA, 1, 0, b"data")


@pytest.mark.parametrize(
    "breach",
    [
        (frames.frame(Type.EOF, 1), DATA),
        (frames.frame(Type.EOF, 1), frames.frame(Type.EOF, 1)),
        (frames.frame(Type.OPENED, 1),),
        (frames.frame(Type.REFUSED, 1, 1),),
        (frames.frame(Type.DATAGRAM, 1, 0, b"x"),),
        (frames.frame(Type.DATA, 1, 0, bytes(INITIAL)), DATA),
    ],
)
def test_a_breach_that_concerns_one_flow_resets_that_flow(breach: tuple[bytes, ...]) -> None:
    rig = Rig()
    rig.listener.__init__(lambda body: Recorder(stalled=True, close_after_eof=False))  # type: ignore[misc]  # again
    mine = rig.opened(1)
    other = rig.opened(3)
    rig.receive(*breach)
    assert mine.closed == [Broken.PROTOCOL]
    assert (Type.RESET, Broken.PROTOCOL, 1, b"") in rig.sent()
    rig.receive(frames.frame(Type.DATA, 3, 0, b"fine"))
    assert bytes(other.received) == b"fine"
    assert other.closed == []
    assert rig.link.budget.reserved == INITIAL


def test_data_before_opened_is_a_breach() -> None:
    rig = Rig()
    rig.listener.answer = lambda flow: None
    rig.receive(frames.frame(Type.OPEN, 1, FlowKind.STREAM), DATA)
    assert rig.listener.flows[1][1].closed == [Broken.PROTOCOL]


@pytest.mark.parametrize(
    "breach",
    [
        frames.frame(Type.DATA, 99, 0, b"x"),
        frames.frame(Type.RESET, 2),
        frames.frame(Type.OPEN, 2, FlowKind.STREAM),
        frames.frame(Type.OPEN, 1, FlowKind.STREAM),
    ],
)
def test_a_breach_without_a_flow_to_blame_ends_the_link(breach: bytes) -> None:
    rig = Rig()
    mine = rig.opened(1)
    with pytest.raises(LinkEnded):
        rig.receive(breach)
    assert mine.closed == [Broken.PROTOCOL]
    assert rig.link.ended is Broken.PROTOCOL


def test_frames_for_finished_flows_are_ignored() -> None:
    rig = Rig()
    mine = rig.opened(1)
    assert mine.endpoint is not None
    mine.endpoint.reset()
    for kind, payload in ((Type.DATA, b"x"), (Type.CREDIT, bytes(8)), (Type.EOF, b""), (Type.RESET, b"")):
        rig.receive(frames.frame(kind, 1, 0, payload))
    assert mine.received == b""
    assert rig.link.ended is None


def test_the_same_batch_malformed_twice_ends_the_link() -> None:
    rig = Rig()
    malformed = frames.message(1, (), (b"nonsense",))
    with pytest.raises(RemoteProtocolError):
        rig.link.receive(Lane.INTERACTIVE, malformed)
    assert rig.link.ended is None
    with pytest.raises(LinkEnded):
        rig.link.receive(Lane.INTERACTIVE, malformed)


def test_a_malformed_batch_is_not_applied_in_part() -> None:
    rig = Rig()
    mine = rig.opened(1)
    with pytest.raises(RemoteProtocolError):
        rig.link.receive(Lane.INTERACTIVE, frames.message(2, (), (DATA, b"nonsense")))
    assert mine.received == b""
    rig.receive(DATA)
    assert mine.received == b"data"


def test_a_handler_that_fails_costs_its_flow_only() -> None:
    class Failing(Recorder):
        def on_data(self, data: memoryview) -> None:
            raise KeyError("bug")

    rig = Rig()
    rig.listener.__init__(lambda body: Failing() if body == b"bad" else Recorder())  # type: ignore[misc]  # again
    rig.receive(
        frames.frame(Type.OPEN, 1, FlowKind.STREAM, b"bad"),
        frames.frame(Type.OPEN, 3, FlowKind.STREAM),
        DATA,
        frames.frame(Type.DATA, 3, 0, b"fine"),
    )
    assert [type(fault) for fault in rig.shell.faults] == [KeyError]
    assert rig.listener.flows[3][1].received == b"fine"
    assert (Type.RESET, Broken.RESET, 1, b"") in rig.sent()


def test_limits_on_flows_and_pending_opens() -> None:
    rig = Rig(Limits(flows=3, pending=2))
    rig.listener.answer = lambda flow: None
    rig.receive(*(frames.frame(Type.OPEN, number, FlowKind.STREAM) for number in (1, 3, 5)))
    assert [(kind, detail, subject) for kind, detail, subject, _ in rig.sent()] == [(Type.REFUSED, Refusal.BUSY, 5)]
    rig.listener.flows[1][0].accept()
    rig.listener.answer = Flow.accept
    rig.receive(*(frames.frame(Type.OPEN, number, FlowKind.STREAM) for number in (7, 9)))
    answers = [(kind, subject) for kind, _, subject, _ in rig.sent()]
    assert answers == [(Type.OPENED, 1), (Type.OPENED, 7), (Type.REFUSED, 9)]


def test_the_budget_refuses_both_ways() -> None:
    rig = Rig(budget=Budget(ceiling=2 * LEAST, pool=0))
    rig.opened(1)
    mine = Recorder()
    rig.link.open(FlowKind.STREAM, b"", mine)
    rig.receive(frames.frame(Type.OPEN, 3, FlowKind.STREAM))
    refused = Recorder()
    rig.link.open(FlowKind.STREAM, b"", refused)
    assert (mine.refusal, refused.refusal) == (None, Refusal.BUSY)
    assert [kind for kind, *_ in rig.sent()] == [Type.OPEN, Type.REFUSED]


def test_a_small_first_window_is_named_and_holds_both_ways() -> None:
    rig = Rig(budget=Budget(ceiling=16 * LEAST, pool=0))
    rig.listener.__init__(lambda body: Recorder(stalled=True))  # type: ignore[misc]  # again
    rig.receive(frames.frame(Type.OPEN, 1, FlowKind.STREAM | 8 << 8))
    _, theirs = rig.listener.flows[1]
    mine = Recorder()
    mine.endpoint = rig.link.open(FlowKind.STREAM, b"", mine)
    units = LEAST // UNIT
    assert rig.sent() == [(Type.OPENED, units, 1, b""), (Type.OPEN, FlowKind.STREAM | units << 8, 2, b"")]

    theirs.write(bytes(9 * UNIT))
    assert sum(len(payload) for kind, _, _, payload in rig.sent() if kind == Type.DATA) == 8 * UNIT
    rig.receive(frames.frame(Type.OPENED, 2, 5))
    mine.write(bytes(9 * UNIT))
    assert sum(len(payload) for kind, _, _, payload in rig.sent() if kind == Type.DATA) == 5 * UNIT

    rig.receive(frames.frame(Type.DATA, 1, 0, bytes(LEAST)))
    assert theirs.closed == []
    rig.receive(frames.frame(Type.DATA, 1, 0, b"x"))
    assert theirs.closed == [Broken.PROTOCOL]


def test_small_data_does_not_keep_a_large_message_alive() -> None:
    rig = Rig()
    kept: list[memoryview] = []

    class Keeper(FlowHandler):
        def on_data(self, data: memoryview) -> None:
            kept.append(data)

    def on_open(flow: Flow, body: bytes) -> EndpointHandler:
        flow.accept()
        return Keeper()

    rig.listener.on_open = on_open  # type: ignore[method-assign]  # another acceptor
    rig.receive(frames.frame(Type.OPEN, 1, FlowKind.STREAM), frames.frame(Type.OPEN, 3, FlowKind.STREAM))
    rig.receive(DATA, frames.frame(Type.DATA, 3, 0, bytes(60000)))
    assert [len(bytes(view.obj)) for view in kept] == [4, 60000 + 4 + 48]


def test_without_a_carrier_a_flow_queues_no_control_frames() -> None:
    rig = Rig()
    mine = rig.opened(1)
    assert mine.endpoint is not None
    rig.receive(frames.frame(Type.DATA, 1, 0, bytes(40000)))
    rig.link.detach(Lane.INTERACTIVE, 1)
    for _ in range(5):
        mine.endpoint.consumed(0)
    mine.endpoint.reset()
    assert rig.link.next_batch(Lane.INTERACTIVE) is None
    rig.link.answer(dataclasses.replace(HELLO, generation=2, peer_instance=b"s" * 16, received=1))
    assert [kind for kind, *_ in rig.sent()] == [Type.RESET]


def test_a_flow_opened_and_reset_without_a_carrier_is_never_mentioned() -> None:
    rig = Rig()
    rig.link.detach(Lane.INTERACTIVE, 1)
    kept = rig.link.open(FlowKind.STREAM, b"", Recorder())
    for _ in range(1000):
        flow = rig.link.open(FlowKind.STREAM, b"", Recorder())
        flow.send_eof()
        flow.reset()
    assert list(rig.link.lanes[0].schedule.control) == [kept]
    kept.reset()
    assert not rig.link.lanes[0].schedule
    rig.link.answer(dataclasses.replace(HELLO, generation=2))
    assert rig.sent() == []
    assert rig.link.budget.reserved == 0


@pytest.mark.parametrize("ours", [True, False])
def test_an_empty_datagram_that_waited_for_the_opening_is_sent(ours: bool) -> None:
    rig = Rig()
    if ours:
        rig.link.open(FlowKind.DATAGRAM, b"", Recorder()).send_datagram(b"")
        rig.sent()
        rig.receive(frames.frame(Type.OPENED, 2))
    else:
        rig.listener.answer = lambda flow: flow.send_datagram(b"")
        rig.receive(frames.frame(Type.OPEN, 1, FlowKind.DATAGRAM))
        rig.listener.flows[1][0].accept()
    assert (Type.DATAGRAM, 0, 2 if ours else 1, b"") in rig.sent()


def test_queries_beyond_the_bound_are_answered_with_nothing() -> None:
    rig = Rig()
    asked: list[Query] = []
    rig.listener.on_query = lambda query: asked.append(query)  # type: ignore[method-assign]  # keeps them
    for number in range(MOST + 1):
        rig.receive(frames.frame(Type.QUERY, number, 0, b"q"))
    assert len(asked) == MOST
    assert rig.sent() == [(Type.REPLY, 0, MOST, b"")]
    asked[0].reply(b"once")
    asked[0].reply(b"twice")
    assert rig.sent() == [(Type.REPLY, 0, 0, b"once")]


def test_a_peer_that_asks_and_does_not_take_the_answers_is_cut_off() -> None:
    rig = Rig(Limits(flows=10, pending=10))
    with pytest.raises(LinkEnded):
        rig.flood(lambda step: ((frames.frame(Type.OPEN, 2 * step + 1, FlowKind.STREAM),), ()))
    assert len(rig.link.flows) == 0
    rig = Rig()
    with pytest.raises(RemoteProtocolError):
        rig.flood(lambda step: ((), (frames.frame(Type.PING, 1),)))
    rig = Rig()
    rig.listener.on_query = lambda query: None  # type: ignore[method-assign]  # never answers
    rig.flood(lambda step: ((frames.frame(Type.QUERY, step, 0, b"q"),), ()))
    assert rig.sent() == [(Type.REPLY, 0, MOST + step, b"") for step in range(MOST)]


@pytest.mark.parametrize("size", [10, 4000, 65000])
def test_answers_that_the_peer_does_not_take_are_bounded_and_counted(size: int) -> None:
    rig = Rig()
    rig.listener.on_query = lambda query: query.reply(bytes(size))  # type: ignore[method-assign]  # answers at once
    rig.flood(lambda step: ((frames.frame(Type.QUERY, step, 0, b"q"),), ()))
    least = frames.HEADER_SIZE + size
    assert min(MOST_BYTES - least, MOST * least) <= rig.link.held <= MOST_BYTES + MOST * frames.HEADER_SIZE
    sent = rig.sent()
    assert sent == [(Type.REPLY, 0, step, bytes(size)) for step in range(len(sent))]


def test_late_answers_that_the_peer_does_not_take_are_bounded() -> None:
    rig = Rig()
    asked: list[Query] = []
    rig.listener.on_query = lambda query: asked.append(query)  # type: ignore[method-assign]  # answers later
    rig.flood(lambda step: ((frames.frame(Type.QUERY, step, 0, b"q"),), ()))
    for query in asked:
        query.reply(bytes(65000))
    assert rig.link.held <= MOST_BYTES + 2 * MOST * frames.HEADER_SIZE
    assert (Type.REPLY, 0, 0, bytes(65000)) in rig.sent()


def test_a_link_that_ended_begins_another_one() -> None:
    client = make("session", role=Role.CLIENT)
    client.attach(handshake.parse(make("session").answer(handshake.parse(client.hello(Lane.INTERACTIVE)))))
    lost = Recorder()
    client.open(FlowKind.STREAM, b"", lost)
    with pytest.raises(LinkEnded):
        client.receive(Lane.INTERACTIVE, frames.message(1, (), (frames.frame(Type.DATA, 99, 0, b"x"),)))
    assert lost.refusal is Refusal.GONE
    client.renew(b"d" * 16)
    waiting = Recorder()
    client.open(FlowKind.STREAM, b"again", waiting)
    hello = handshake.parse(client.hello(Lane.INTERACTIVE))
    assert (hello.instance, hello.peer_instance, hello.received) == (b"d" * 16, b"", 0)
    other = make("session")
    client.attach(handshake.parse(other.answer(hello)))
    message = client.next_batch(Lane.INTERACTIVE)
    assert message is not None
    other.receive(Lane.INTERACTIVE, message)
    assert isinstance(other.acceptor, Listener)
    assert other.acceptor.bodies == [b"again"]


def test_a_batch_malformed_once_is_forgotten_with_the_link() -> None:
    client = make("session", role=Role.CLIENT)
    for instance in (b"d" * 16, b"e" * 16):
        client.attach(handshake.parse(make("session").answer(handshake.parse(client.hello(Lane.INTERACTIVE)))))
        with pytest.raises(RemoteProtocolError):
            client.receive(Lane.INTERACTIVE, frames.message(1, (), (b"nonsense",)))
        assert client.ended is None
        client.renew(instance)
        assert client.detached_at is not None


def test_go_away_and_a_second_hello() -> None:
    rig = Rig()
    with pytest.raises(PeerLeft, match="bye") as left:
        rig.link.receive(Lane.INTERACTIVE, handshake.go_away(GoAway.ENDED, "bye"))
    assert left.value.permanent
    with pytest.raises(RemoteProtocolError):
        rig.link.receive(Lane.INTERACTIVE, HELLO.encode())


def test_a_server_asks_for_the_bulk_lane_until_it_is_there() -> None:
    rig = Rig()
    mine = rig.opened(1)
    mine.write(bytes(16 << 20))
    wants = 0
    for step in range(40):
        rig.now = step * 0.1
        limit = rig.link.lanes[0].sent * 65536 * 2
        rig.receive(frames.credit_frame(1, limit), control=(frames.frame(Type.ACK, rig.link.lanes[0].sent, 0),))
        while (message := rig.link.next_batch(Lane.INTERACTIVE)) is not None:
            wants += (Type.WANT, Lane.BULK, 0, b"") in owned(frames.parse(frames.split(message)[1], numbered=False))
        rig.link.on_timeout()
    assert 3 <= wants <= 4


@pytest.mark.parametrize("replaced", [Lane.INTERACTIVE, Lane.BULK])
@pytest.mark.parametrize("at_once", [True, False])
def test_an_acknowledgement_lost_with_the_other_lanes_carrier_is_said_again(replaced: Lane, at_once: bool) -> None:
    rig = Rig()
    stays = Lane(1 - replaced)
    rig.link.answer(dataclasses.replace(HELLO, lane=Lane.BULK, peer_instance=b"s" * 16))
    rig.link.receive(stays, frames.message(1, (), (frames.frame(Type.OPEN, 1, FlowKind.STREAM),)))
    for lane in (replaced, stays):  # what is owed leaves with the carrier that is about to end, and is lost with it
        while rig.link.next_batch(lane) is not None:
            pass
    assert not rig.link.lanes[stays].owes_ack
    if not at_once:
        rig.link.detach(replaced, 1)
    else:
        rig.link.answer(dataclasses.replace(HELLO, lane=replaced, peer_instance=b"s" * 16, generation=2))
    control: list[tuple[int, int, int, bytes]] = []
    for lane in Lane:
        while (message := rig.link.next_batch(lane)) is not None:
            control += owned(frames.parse(frames.split(message)[1], numbered=False))
    assert (Type.ACK, stays, 1, b"") in control


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"oldest": 2, "newest": 3}, GoAway.VERSION),
        ({"session": "other"}, GoAway.SESSION),
        ({"generation": 1}, GoAway.STALE),
        ({"lane": Lane.BULK, "instance": b"x" * 16}, GoAway.UNKNOWN_LINK),
        ({"lane": Lane.BULK, "peer_instance": b"x" * 16}, GoAway.UNKNOWN_LINK),
    ],
)
def test_hellos_that_are_refused(change: dict[str, object], code: GoAway) -> None:
    registry = Registry(lambda session: make(session), Bounds())
    link, _, _ = registry.greet(HELLO, "session")
    with pytest.raises(HelloRefused) as refused:
        registry.greet(dataclasses.replace(HELLO, **{"generation": 2, **change}), "session")  # type: ignore[arg-type]
    assert refused.value.code is code
    assert registry.links() == [link]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        frames.message(1, [], [frames.frame(Type.EOF, 1)]),
        frames.message(0, [frames.frame(Type.PING)]),
        frames.message(0, [frames.frame(Type.HELLO, payload=b"\xff\xff")]),
        dataclasses.replace(HELLO, instance=b"short").encode(),
        dataclasses.replace(HELLO, generation=0).encode(),
        HELLO.encode() + b"x",
    ],
)
def test_first_messages_that_are_no_hello(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        handshake.parse(message)


def test_a_hello_survives_its_encoding() -> None:
    assert handshake.parse(HELLO.encode()) == HELLO


def test_one_session_gets_only_so_many_links() -> None:
    registry = Registry(lambda session: make(session), Bounds())
    for index in range(MOST_PER_SESSION):
        registry.greet(dataclasses.replace(HELLO, instance=bytes([index]) * 16), "session")
    with pytest.raises(HelloRefused) as refused:
        registry.greet(dataclasses.replace(HELLO, instance=b"x" * 16), "session")
    assert refused.value.code is GoAway.BUSY
    registry.greet(dataclasses.replace(HELLO, session="other"), "other")
    registry.links("session")[0].detach(Lane.INTERACTIVE, 1)
    registry.greet(dataclasses.replace(HELLO, instance=b"x" * 16), "session")


def test_a_link_that_has_ended_is_not_resumed() -> None:
    registry = Registry(lambda session: make(session), Bounds())
    link, _, _ = registry.greet(HELLO, "session")
    link.end(Broken.PROTOCOL)
    again, _, replaced = registry.greet(dataclasses.replace(HELLO, generation=2), "session")
    assert again is not link
    assert replaced == [link]


def test_detached_links_are_bounded_longest_detached_first() -> None:
    now = 0.0
    clock: Callable[[], float] = lambda: now  # noqa: E731  # typed, and reads the variable each time
    registry = Registry(lambda session: make(session, clock), Bounds(links=2, flows=100, bytes=1 << 20))
    links = []
    for index in range(4):
        hello = dataclasses.replace(HELLO, session=f"s{index}", instance=bytes([index]) * 16)
        link, _, _ = registry.greet(hello, hello.session)
        links.append(link)
    for link in (links[2], links[0], links[1]):
        now += 1
        link.detach(Lane.INTERACTIVE, 1)
    assert registry.excess() == [links[2]]
    for link in registry.excess():
        registry.remove(link)
    assert registry.excess() == []
    assert set(registry.links()) == {links[0], links[1], links[3]}


def make(session: str, clock: Callable[[], float] = lambda: 0.0, *, role: Role = Role.SERVER) -> Link:
    return Link(
        role=role,
        session=session,
        instance=(b"s" if role is Role.SERVER else b"c") * 16,
        acceptor=Listener(),
        shell=Shell(),
        clock=clock,
        budget=Budget(),
    )
