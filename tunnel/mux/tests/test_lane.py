"""Numbers, acknowledgement, replay, and the cap."""

from __future__ import annotations

import pytest

from tunnel.mux import frames
from tunnel.mux.errors import RemoteProtocolError
from tunnel.mux.lane import LEAST_CAP, SHAPES, Lane, LaneState
from tunnel.mux.watchdog import Watchdog


def attach(lane: LaneState, received: int, now: float = 0.0) -> None:
    lane.attach(lane.generation + 1, received, Watchdog(now, idle=15.0), now)


def test_unacknowledged_batches_are_replayed_in_order_with_new_control() -> None:
    lane = LaneState(Lane.BULK)
    attach(lane, 0)
    sent = [lane.keep([b"old"], [b"batch%d" % number], 0.0) for number in (1, 2, 3)]
    lane.detach()
    attach(lane, 1)
    ping = frames.frame(frames.Type.PING, 1)
    replayed = []
    while lane.replaying:
        replayed.append(lane.next_replay([ping]))
    assert replayed == [frames.with_control(message, [ping]) for message in sent[1:]]
    assert lane.acknowledge(3, 1.0)
    assert lane.under_way == 0


def test_an_acknowledgement_during_the_replay_shortens_it() -> None:
    lane = LaneState(Lane.BULK)
    attach(lane, 0)
    for _ in range(4):
        lane.keep([], [b"x"], 0.0)
    lane.detach()
    attach(lane, 0)
    lane.next_replay([])
    lane.acknowledge(3, 0.0)
    assert frames.split(lane.next_replay([]))[0] == 4
    assert not lane.replaying


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    lane = LaneState(Lane.BULK)
    with pytest.raises(RemoteProtocolError):
        lane.acknowledge(1, 0.0)
    with pytest.raises(RemoteProtocolError):
        attach(lane, 1)


def test_duplicates_are_dropped_and_gaps_are_errors() -> None:
    lane = LaneState(Lane.INTERACTIVE)
    assert lane.accept_number(1)
    lane.count_received(10, 0.0)
    assert not lane.accept_number(1)
    with pytest.raises(RemoteProtocolError):
        lane.accept_number(3)


def test_acknowledgements_wait_for_company_but_not_for_long() -> None:
    lane = LaneState(Lane.INTERACTIVE)
    assert not lane.count_received(100, 5.0)
    assert lane.ack_due == pytest.approx(5.05)
    assert lane.count_received(SHAPES[Lane.INTERACTIVE].ack_after, 5.01)
    assert lane.ack() == frames.frame(frames.Type.ACK, 2, Lane.INTERACTIVE)
    assert not lane.owes_ack


def test_the_cap_follows_a_slow_line_down_and_a_fast_one_up() -> None:
    lane = LaneState(Lane.BULK)
    attach(lane, 0)
    now = 0.0

    def run(rate: float, seconds: float) -> None:
        nonlocal now
        end = now + seconds
        while now < end:
            while room := lane.room:
                lane.keep([], [bytes(room - 16)], now)
            oldest = len(lane._kept[0])
            now += oldest / rate
            lane.acknowledge(lane.acked + 1, now)

    run(200e3, 60)
    assert 150e3 < lane.cap < 250e3
    run(1e3, 200)
    assert lane.cap == LEAST_CAP
    run(20e6, 20)
    assert lane.cap == SHAPES[Lane.BULK].near  # more would only wait in queues
    lane.round_trip = 0.2
    run(20e6, 20)
    assert SHAPES[Lane.BULK].first < lane.cap < SHAPES[Lane.BULK].cap
    lane.round_trip = 0.5
    run(20e6, 20)
    assert lane.cap == SHAPES[Lane.BULK].cap


def test_a_low_cap_rises_also_when_each_acknowledgement_is_for_everything() -> None:
    lane = LaneState(Lane.BULK)
    lane.cap = LEAST_CAP
    attach(lane, 0)
    for step in range(1, 30):
        while room := lane.room:
            lane.keep([], [bytes(room - 16)], step * 0.05)
        lane.acknowledge(lane.sent, (step + 1) * 0.05)
    assert lane.cap == SHAPES[Lane.BULK].near


def test_an_outage_is_not_a_slow_line() -> None:
    lane = LaneState(Lane.BULK)
    attach(lane, 0)
    while room := lane.room:
        lane.keep([], [bytes(room - 16)], 0.0)
    lane.detach()
    attach(lane, lane.sent, 20.0)
    assert lane.cap == SHAPES[Lane.BULK].first
