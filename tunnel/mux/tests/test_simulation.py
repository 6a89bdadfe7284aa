"""Two links over lines that fail: whatever happens, exactly the bytes arrive, in order, within the memory promised."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunnel.endpoint import Broken, Refusal
from tunnel.mux.flow import FlowKind
from tunnel.mux.lane import SHAPES, Lane
from tunnel.mux.link import Link
from tunnel.mux.watchdog import CLIENT_IDLE
from tunnel.mux.window import Budget
from tunnel.testing.peers import Listener, Recorder
from tunnel.testing.simulation import ClientHost, Line, ServerHost, World


class Pair:
    """A client and a server over one line, with listeners on both."""

    def __init__(self, *, latency: float = 0.01, bandwidth: float = 50e6, budget: Budget | None = None) -> None:
        self.world = World()
        self.line = Line(latency, bandwidth)
        self.server_side = Listener()
        self.client_side = Listener()
        self.server = ServerHost(self.world, lambda link: self.server_side, budget=budget)
        self.client = ClientHost(self.world, self.line, self.server, self.client_side)

    def open(self, link: Link, body: bytes = b"x", kind: FlowKind = FlowKind.STREAM, **options: bool) -> Recorder:
        recorder = Recorder(**options)
        recorder.endpoint = link.open(kind, body, recorder)
        return recorder

    def connect(self) -> None:
        assert self.world.run(5, lambda: self.client.link.attached and self.client.shell.link.round_trip > 0)

    def check(self) -> None:
        assert self.client.faults == []
        assert self.server.faults == []
        assert self.client.errors == []
        assert self.server.errors == []


def test_open_data_and_half_close_take_one_round_trip_each() -> None:
    pair = Pair(latency=0.01)
    pair.connect()
    began = pair.world.now
    mine = pair.open(pair.client.link, b"hello")
    assert pair.world.run(1, lambda: mine.opened)
    assert pair.world.now - began == pytest.approx(0.02, abs=0.002)
    ((_, theirs),) = pair.server_side.flows.values()
    assert pair.server_side.bodies == [b"hello"]
    mine.write(b"question")
    mine.end()
    theirs.write(b"answer")
    assert pair.world.run(1, lambda: mine.closed == [None] and theirs.closed == [None])
    assert (bytes(theirs.received), bytes(mine.received)) == (b"question", b"answer")
    assert pair.client.link.flows == pair.server.link.flows == {}
    assert pair.client.budget.reserved == pair.server.budget.reserved == 0
    pair.check()


def test_refused_and_reset() -> None:
    pair = Pair()
    pair.connect()
    pair.server_side.answer = lambda flow: flow.refuse(Refusal.UNREACHABLE, "no route")
    refused = pair.open(pair.client.link)
    assert pair.world.run(1, lambda: refused.refusal is Refusal.UNREACHABLE)
    pair.server_side.answer = lambda flow: flow.accept()
    mine = pair.open(pair.client.link)
    pair.world.run(1)
    ((_, (flow, theirs)),) = list(pair.server_side.flows.items())[1:]
    flow.reset()
    assert pair.world.run(1, lambda: mine.closed == [Broken.RESET])
    assert theirs.closed == []
    assert pair.client.budget.reserved == pair.server.budget.reserved == 0
    pair.check()


def test_an_idle_flow_lives_an_hour_and_costs_a_ping_now_and_then() -> None:
    pair = Pair()
    pair.connect()
    mine = pair.open(pair.client.link)
    assert pair.world.run(1, lambda: mine.opened)
    ((_, theirs),) = pair.server_side.flows.values()
    messages = 0

    def count(lane: Lane, message: bytes) -> bytes:
        nonlocal messages
        messages += 1
        return message

    pair.client.on_batch = pair.server.on_batch = count
    pair.world.run(3600)
    assert 0 < messages <= 2 * 3600 / CLIENT_IDLE
    assert len(pair.client.attached_at) == 1
    mine.write(b"still here")
    theirs.write(b"so am I")
    assert pair.world.run(1, lambda: (bytes(theirs.received), bytes(mine.received)) == (b"still here", b"so am I"))
    pair.check()


def test_server_opens_too_and_datagrams_keep_their_bounds() -> None:
    pair = Pair()
    pair.connect()
    mine = pair.open(pair.server.link, b"inbound", FlowKind.DATAGRAM)
    flow = mine.endpoint
    assert flow is not None
    for size in (0, 1, 60000, 65535):
        flow.send_datagram(bytes(size))  # type: ignore[attr-defined]  # a datagram flow has it
        pair.world.run(0.3)
    ((_, theirs),) = pair.client_side.flows.values()
    assert [len(data) for data in theirs.datagrams] == [0, 1, 60000, 65535]
    flow.reset()
    assert pair.world.run(1, lambda: theirs.closed == [Broken.RESET])
    pair.check()


def test_queries_are_answered_or_time_out() -> None:
    pair = Pair()
    answers: list[bytes | None] = []
    pair.client.link.query(b"early", answers.append)
    assert answers == [None]
    pair.connect()
    pair.client.link.query(b"q", answers.append)
    pair.world.run(1)
    assert answers == [None, b"re:q"]
    pair.line.cut(silent=True)
    pair.client.link.query(b"lost", answers.append)
    pair.world.run(6)
    assert answers == [None, b"re:q", None]


@pytest.mark.parametrize("silent", [False, True])
def test_transfer_goes_on_after_a_cut_of_20_s(silent: bool) -> None:
    pair = Pair(latency=0.01, bandwidth=20e6)
    pair.connect()
    data = random.Random(1).randbytes(8 << 20)
    mine = pair.open(pair.client.link)
    pair.world.run(0.1)
    ((_, theirs),) = pair.server_side.flows.values()
    mine.write(data)
    theirs.write(data)
    pair.world.run(0.3)
    assert 0 < len(theirs.received) < len(data)
    pair.line.cut(silent=silent)
    pair.world.run(20)
    restored = pair.world.now
    pair.line.restore()
    assert pair.world.run(10, lambda: pair.client.attached_at[-1][0] > restored)
    assert pair.client.attached_at[-1][0] - restored < 5
    mine.end()
    assert pair.world.run(10, lambda: mine.closed == [None])
    assert theirs.received == data
    assert mine.received == data
    pair.check()


def test_a_stalled_carrier_that_comes_back_beside_its_replacement_delivers_nothing_twice() -> None:
    pair = Pair(latency=0.05, bandwidth=5e6)
    pair.connect()
    data = random.Random(3).randbytes(1 << 20)
    mine, theirs = pair.open(pair.client.link), pair.open(pair.server.link)
    pair.world.run(1)
    for _ in range(8):
        mine.write(data)
        theirs.write(data)
        pair.line.stall(2.05)  # the replacement's hello is under way when the old carrier delivers again
        pair.world.run(3)
    pair.world.run(30)
    assert len(pair.client.attached_at) > 5
    for side in (pair.server_side, pair.client_side):
        ((_, recorder),) = side.flows.values()
        assert recorder.received == data * 8
    pair.check()


@pytest.mark.parametrize("seed", range(12))
def test_random_faults_lose_nothing(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(latency=chance.choice((0.0005, 0.01, 0.1)), bandwidth=chance.choice((2e6, 20e6)))
    pairs: list[tuple[Recorder, bytes, bytes]] = []

    def answered(side: Listener) -> None:
        def answer(flow: object) -> None:
            (held, recorder) = next(reversed(side.flows.values()))
            recorder.write(replies[side.bodies[-1]])
            held.accept()

        side.answer = answer

    replies: dict[bytes, bytes] = {}
    answered(pair.server_side)
    answered(pair.client_side)
    pair.connect()
    for index in range(30):
        body = b"%d" % index
        sent, reply = chance.randbytes(chance.randint(0, 300_000)), chance.randbytes(chance.randint(0, 300_000))
        replies[body] = reply
        mine = pair.open(chance.choice((pair.client, pair.server)).link, body)
        mine.write(sent)
        mine.end()
        pairs.append((mine, sent, reply))
        pair.world.run(chance.random() * 0.3)
        if chance.random() < 0.3:
            pair.line.stall(chance.random() * 6)
        elif chance.random() < 0.4:
            pair.line.cut(silent=chance.random() < 0.5)
            pair.world.run(chance.random() * 8)
            pair.line.restore()
    assert pair.world.run(120, lambda: all(mine.closed for mine, _, _ in pairs))
    received = {
        body: bytes(recorder.received)
        for side in (pair.server_side, pair.client_side)
        for body, (_, recorder) in zip(side.bodies, side.flows.values(), strict=True)
    }
    for index, (mine, sent, reply) in enumerate(pairs):
        assert mine.closed == [None]
        assert mine.received == reply
        assert received[b"%d" % index] == sent
    assert pair.client.budget.reserved == pair.server.budget.reserved == 0
    assert pair.client.budget.grown == pair.server.budget.grown == 0
    pair.check()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans()),
        st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, 200_000)),
        st.tuples(st.just("eof"), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.integers(0, 5)),
        st.tuples(st.just("stall"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("cut"), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0, 4)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS)
def test_any_sequence_of_actions(actions: list[tuple[str, float, int]]) -> None:
    pair = Pair()
    pair.server_side = Listener(lambda body: Recorder(close_after_eof=False))
    pair.client_side.__init__(lambda body: Recorder(close_after_eof=False))  # type: ignore[misc]  # same as the server's
    pair.connect()
    flows: list[tuple[Recorder, bytearray]] = []
    reset: set[int] = set()
    for action, *arguments in actions:
        if action == "open":
            link = (pair.client if arguments[0] else pair.server).link
            body = b"%d" % len(flows)
            flows.append((pair.open(link, body, close_after_eof=False), bytearray()))
        elif action == "cut":
            pair.line.cut(silent=bool(arguments[0]))
            pair.line.restore()
        elif action == "wait":
            pair.world.run(float(arguments[0]))
        elif flows:
            index = int(arguments[0]) % len(flows)
            mine, sent = flows[index]
            if action == "write" and not mine._end:
                data = bytes([len(sent) % 251]) * int(arguments[1])
                mine.write(data)
                sent += data
            elif action == "eof":
                mine.end()
            elif action == "reset" and mine.endpoint is not None and not mine.closed and mine.refusal is None:
                mine.endpoint.reset()
                reset.add(index)
            elif action == "stall":
                theirs = remote(pair, index)
                if theirs is not None and arguments[1]:
                    theirs.stalled = True
                elif theirs is not None:
                    theirs.read_on()
    for index in range(len(flows)):
        theirs = remote(pair, index)
        if theirs is not None:
            theirs.read_on()
    pair.world.run(30)
    for index, (mine, sent) in enumerate(flows):
        theirs = remote(pair, index)
        if index in reset:
            assert mine.closed == []
            if theirs is not None:
                assert theirs.closed == [Broken.RESET]
                assert sent.startswith(theirs.received)
            continue
        assert theirs is not None
        assert theirs.received == sent
        assert theirs.eof == mine._end
        theirs.end()
        mine.end()
    pair.world.run(10)
    assert pair.client.link.flows == pair.server.link.flows == {}
    assert pair.client.budget.reserved == pair.server.budget.reserved == 0
    pair.check()


def remote(pair: Pair, index: int) -> Recorder | None:
    """The accepting end of the flow whose open said `index`."""
    for side in (pair.server_side, pair.client_side):
        for body, (_, recorder) in zip(side.bodies, side.flows.values(), strict=True):
            if body == b"%d" % index:
                return recorder
    return None


@pytest.mark.parametrize("stalled", [1, 64])
def test_stalled_readers_delay_nobody_and_hold_no_more_than_their_windows(stalled: bool) -> None:
    pair = Pair(latency=0.005)
    pair.connect()
    pair.server_side.__init__(lambda body: Recorder(stalled=body == b"stall"))  # type: ignore[misc]
    slow = [pair.open(pair.client.link, b"stall") for _ in range(stalled)]
    for mine in slow:
        mine.write(bytes(1 << 20))
    pair.world.run(2)
    assert pair.server.link.held <= stalled * 65536
    assert pair.client.link.held <= stalled * 65536
    times = []
    for _ in range(20):
        began = pair.world.now
        mine = pair.open(pair.client.link, b"quick")
        mine.write(bytes(60_000))
        mine.end()
        assert pair.world.run(2, lambda mine=mine: bool(mine.closed))  # type: ignore[misc]
        times.append(pair.world.now - began)
    assert max(times) < 0.05
    pair.check()


def test_a_small_process_serves_a_thousand_flows_within_its_ceiling() -> None:
    ceiling = 14 << 20
    pair = Pair(latency=0.005, budget=Budget(ceiling=ceiling, pool=2 << 20))
    pair.connect()
    pair.server_side.__init__(lambda body: Recorder(stalled=body == b"stall"))  # type: ignore[misc]
    mine = [pair.open(pair.client.link, b"stall" if index % 2 else b"reads") for index in range(1000)]
    assert pair.world.run(5, lambda: all(one.opened for one in mine))
    for one in mine:
        one.write(bytes(100_000))
        one.end()
    quick = mine[::2]
    assert pair.world.run(20, lambda: all(one.closed for one in quick))
    assert all(one.closed == [None] for one in quick)
    assert pair.server.link.held <= ceiling
    for one in mine[1::2]:
        one.endpoint.reset()  # type: ignore[union-attr]
    pair.world.run(1)
    assert pair.server.budget.reserved == pair.server.budget.grown == 0
    pair.check()


def test_a_big_flow_moves_to_bulk_and_leaves_the_interactive_lane_free() -> None:
    pair = Pair(latency=0.01, bandwidth=10e6)
    pair.connect()
    big = pair.open(pair.client.link, b"big")
    data = random.Random(2).randbytes(30 << 20)
    big.write(data)
    pair.world.run(1)
    small = pair.open(pair.client.link, b"small", close_after_eof=False)
    assert pair.world.run(1, lambda: small.opened)
    times = []
    for _ in range(20):
        (_, theirs) = pair.server_side.flows[small.endpoint.id]  # type: ignore[union-attr]
        began, before = pair.world.now, len(theirs.received)
        small.write(b"ping")
        assert pair.world.run(1, lambda: len(theirs.received) == before + 4)  # noqa: B023  # called before the loop goes on
        times.append(pair.world.now - began)
    assert max(times) < 0.015
    assert pair.client.link.lanes[Lane.BULK].sent > 10
    big.end()
    assert pair.world.run(20, lambda: big.closed == [None])
    assert pair.server_side.flows[big.endpoint.id][1].received == data  # type: ignore[union-attr]
    pair.check()


def test_bytes_under_way_stay_below_the_caps() -> None:
    pair = Pair(latency=0.2, bandwidth=40e6)
    pair.connect()
    big = [pair.open(pair.client.link) for _ in range(4)]
    for mine in big:
        mine.write(bytes(4 << 20))
    worst = dict.fromkeys(Lane, 0)
    while not pair.world.run(0.01, lambda: all(mine.unsent == 0 for mine in big)):
        for state in pair.client.link.lanes:
            worst[state.lane] = max(worst[state.lane], state.under_way)
    for lane, most in worst.items():
        assert most < SHAPES[lane].cap + SHAPES[lane].batch + 64
    pair.check()


def test_slow_line_lowers_the_cap_and_is_never_suspected() -> None:
    pair = Pair(latency=0.05, bandwidth=60e3)
    pair.connect()
    mine = pair.open(pair.client.link)
    mine.write(bytes(2 << 20))
    mine.end()
    assert pair.world.run(90, lambda: bool(mine.closed))
    assert [lane for _, lane in pair.client.attached_at] == [Lane.INTERACTIVE, Lane.BULK]
    pair.check()


def test_a_line_too_slow_for_a_batch_within_patience_gets_on() -> None:
    pair = Pair(latency=0.05, bandwidth=15e3)
    pair.connect()
    mine = [pair.open(pair.client.link) for _ in range(4)]
    for each in mine:
        each.write(bytes(64 << 10))
        each.end()
    assert pair.world.run(120, lambda: all(each.closed for each in mine))
    pair.check()


def test_server_restart_breaks_open_flows_and_asks_again_for_unanswered_ones() -> None:
    pair = Pair()
    pair.connect()
    mine = pair.open(pair.client.link)
    pair.world.run(1)
    pair.server_side.answer = lambda flow: None
    waiting = pair.open(pair.client.link, b"waiting")
    pair.world.run(1)
    pair.line.cut(silent=False)
    pair.server.restart()
    pair.server_side.__init__()  # type: ignore[misc]
    unsent = pair.open(pair.client.link, b"unsent")
    pair.world.run(1)
    pair.line.restore()
    assert pair.world.run(5, lambda: waiting.opened and unsent.opened)
    assert mine.closed == [Broken.LINK_LOST]
    assert sorted(pair.server_side.bodies) == [b"unsent", b"waiting"]
    waiting.write(b"works")
    pair.world.run(1)
    assert b"works" in [recorder.received for _, recorder in pair.server_side.flows.values()]
    pair.check()


def test_another_session_cannot_resume() -> None:
    pair = Pair()
    pair.connect()
    mine = pair.open(pair.client.link)
    pair.world.run(1)
    thief = ClientHost(
        pair.world, pair.line, pair.server, Listener(), session="other", instance=pair.client.link.instance
    )
    thief.link.peer_instance = pair.client.link.peer_instance
    pair.world.run(2)
    assert thief.link.attached
    assert thief.link.peer_instance != pair.client.link.peer_instance
    assert len(pair.server.registry.links("other")[0].flows) == 0
    liar = ClientHost(pair.world, pair.line, pair.server, Listener(), session="other", claims="session")
    pair.world.run(2)
    assert not liar.link.attached
    assert liar.refusals[0].permanent
    mine.write(b"still mine")
    pair.world.run(1)
    ((_, theirs),) = pair.server_side.flows.values()
    assert theirs.received == b"still mine"


def test_links_that_the_session_left_behind_end_when_its_new_process_comes() -> None:
    pair = Pair()
    pair.connect()
    pair.open(pair.client.link)
    pair.world.run(1)
    ((_, theirs),) = pair.server_side.flows.values()
    pair.client.close()
    pair.world.run(1)
    assert theirs.closed == []
    ClientHost(pair.world, pair.line, pair.server, Listener())
    pair.world.run(1)
    assert theirs.closed == [Broken.LINK_LOST]


@pytest.mark.parametrize("seed", range(40))
def test_garbage_from_a_client_ends_only_its_carrier(seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair()
    pair.connect()
    bystander = ClientHost(pair.world, pair.line, pair.server, Listener(), session="bystander")
    pair.world.run(1)
    mine = pair.open(pair.client.link)
    other = pair.open(bystander.link)
    pair.world.run(1)

    def falsify(lane: Lane, message: bytes) -> bytes:
        if chance.random() < 0.5:
            return message
        position = chance.randrange(len(message))
        match chance.randrange(3):
            case 0:
                return chance.randbytes(chance.randint(0, 200))
            case 1:
                return message[:position]
            case _:
                return message[:position] + bytes([chance.randrange(256)]) + message[position + 1 :]

    pair.client.on_batch = falsify
    for _ in range(20):
        mine.write(chance.randbytes(1000))
        pair.world.run(0.2)
    other.write(b"undisturbed")
    pair.world.run(1)
    recorder = next(
        r for link_flow, r in pair.server_side.flows.values() if link_flow.handler is r and r.received == b"undisturbed"
    )
    assert recorder.closed == []
    assert other.closed == []
    assert pair.server.faults == []
    assert bystander.errors == []
