"""Who gets room in a batch."""

from __future__ import annotations

from collections import Counter

import pytest

from tunnel.endpoint import EndpointHandler
from tunnel.mux import frames
from tunnel.mux.flow import DATAGRAM_AGE, DATAGRAM_COST, DATAGRAM_QUEUE, Flow, FlowHandler, FlowKind, Say, State
from tunnel.mux.schedule import Scheduler
from tunnel.mux.window import Budget


class Owner:
    """A flow's link, reduced to one scheduler."""

    def __init__(self, quantum: int = 1000) -> None:
        self.budget = Budget()
        self.schedule = Scheduler(quantum)
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def list_control(self, flow: Flow) -> None:
        self.schedule.add_control(flow)

    def list_data(self, flow: Flow) -> None:
        self.schedule.add_data(flow)

    def answered(self) -> None:
        pass

    def forget(self, flow: Flow) -> None:
        pass

    def flow(self, number: int, kind: FlowKind = FlowKind.STREAM, handler: EndpointHandler | None = None) -> Flow:
        flow = Flow(self, number, kind, handler or FlowHandler(), State.OPEN)
        assert flow.admit()
        return flow

    def fill(self, room: int, now: float = 0.0) -> list[frames.Frame]:
        parts: list[frames.Buffer] = []
        self.schedule.fill(parts, room, 1, now, 0.0)
        return frames.parse(memoryview(b"".join(parts)), numbered=True)


def test_busy_flows_share_equally_over_batches() -> None:
    owner = Owner()
    flows = [owner.flow(number) for number in (1, 3, 5)]
    flows[0].send(memoryview(bytes(60000)))
    for _ in range(60):
        flows[1].send(memoryview(bytes(1000)))
        flows[2].send(memoryview(bytes(10)))
    shares: Counter[int] = Counter()
    for _ in range(20):
        for _, _, subject, payload in owner.fill(5000):
            shares[subject] += len(payload)
    assert shares[5] == 600
    assert abs(shares[1] - shares[3]) <= 2000
    assert shares[1] + shares[3] > 90000


def test_a_flow_alone_gets_the_whole_batch_in_one_frame() -> None:
    owner = Owner()
    flow = owner.flow(1)
    for _ in range(50):
        flow.send(memoryview(b"x" * 1000))
    ((kind, _, _, payload),) = owner.fill(40016)
    assert (kind, len(payload)) == (frames.Type.DATA, 40000)


def test_control_goes_first_and_eof_rides_behind_the_last_byte() -> None:
    owner = Owner()
    flow, other = owner.flow(1), owner.flow(3)
    flow.send(memoryview(b"last"))
    flow.send_eof()
    other.reset()
    assert [kind for kind, *_ in owner.fill(10000)] == [frames.Type.RESET, frames.Type.DATA, frames.Type.EOF]
    assert not owner.schedule


def test_datagrams_stay_whole_and_take_turns() -> None:
    owner = Owner()
    flow, other = owner.flow(1, FlowKind.DATAGRAM), owner.flow(3)
    for size in (3000, 3000, 100):
        flow.send_datagram(bytes(size))
    other.send(memoryview(bytes(9000)))
    seen: list[tuple[int, int]] = []
    for _ in range(12):
        seen += [(kind, len(payload)) for kind, _, _, payload in owner.fill(2000)]
    assert [size for kind, size in seen if kind == frames.Type.DATAGRAM] == [3000, 3000, 100]
    assert sum(size for kind, size in seen if kind == frames.Type.DATA) == 9000
    first = next(index for index, (kind, _) in enumerate(seen) if kind == frames.Type.DATAGRAM)
    assert sum(size for kind, size in seen[:first] if kind == frames.Type.DATA) >= 1000


def test_datagrams_that_waited_too_long_or_are_too_many_are_dropped() -> None:
    owner = Owner()
    flow = owner.flow(1, FlowKind.DATAGRAM)
    flow.send_datagram(b"stale")
    owner.now = 1.5
    assert owner.fill(1000, now=1.5) == []
    for step in range(100):
        flow.send_datagram(bytes([step]) * 1000)
    assert [payload[0] for _, _, _, payload in owner.fill(1 << 20, now=1.5)] == list(range(48, 100))
    assert owner.budget.buffered == 0


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_datagrams_that_nothing_takes_are_bounded_and_do_not_grow_old(size: int) -> None:
    owner = Owner()
    flow = owner.flow(1, FlowKind.DATAGRAM)
    for _ in range(10_000):
        flow.send_datagram(bytes(size))
    assert flow.held == owner.budget.buffered <= DATAGRAM_QUEUE
    owner.now = DATAGRAM_AGE * 1.5
    flow.send_datagram(bytes(size))
    assert flow.held == size + DATAGRAM_COST
    assert len(owner.fill(1 << 20, now=owner.now)) == 1
    assert owner.budget.buffered == 0


@pytest.mark.parametrize("size", [2000, 65535])
def test_a_datagram_larger_than_a_batch_goes_out_although_every_batch_has_control(size: int) -> None:
    owner = Owner()
    flow, other, talker = owner.flow(1, FlowKind.DATAGRAM), owner.flow(3), owner.flow(5)
    flow.send_datagram(bytes(size))
    other.send(memoryview(bytes(60000)))
    seen: Counter[int] = Counter()
    for _ in range(60):
        talker._control(Say.CREDIT)
        for kind, _, subject, payload in owner.fill(2000):
            seen[subject] += len(payload) if kind != frames.Type.CREDIT else 0
    assert (seen[1], seen[3]) == (size, 60000)


def test_credit_is_coalesced_into_one_frame() -> None:
    owner = Owner()
    flow = owner.flow(1)
    for _ in range(2):
        assert flow.received_data(memoryview(bytes(32768)))
        flow.consumed(32768)
    assert flow.say is Say.CREDIT
    ((kind, _, _, payload),) = owner.fill(1000)
    assert (kind, frames.OFFSET.unpack(payload)[0]) == (frames.Type.CREDIT, 131072)
