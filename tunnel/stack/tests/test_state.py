"""The state table: every pair is either in RFC 9293's diagram or an error."""

from __future__ import annotations

import pytest

from tunnel.stack.state import (
    FINISHED,
    HALF_OPEN,
    RECEIVING,
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    State,
    following,
)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ([Event.ACCEPT, Event.SYN_ACKED, Event.FIN_SENT, Event.FIN_ACKED, Event.FIN_RECEIVED], State.TIME_WAIT),
        ([Event.ACCEPT, Event.SYN_ACKED, Event.FIN_RECEIVED, Event.FIN_SENT, Event.FIN_ACKED], State.CLOSED),
        ([Event.ACCEPT, Event.SYN_ACKED, Event.FIN_SENT, Event.FIN_RECEIVED, Event.FIN_ACKED], State.TIME_WAIT),
        ([Event.ABORT], State.CLOSED),
        ([Event.ACCEPT, Event.ABORT], State.CLOSED),
    ],
    ids=["active", "passive", "simultaneous", "refused", "reset"],
)
def test_ways_through(path: list[Event], end: State) -> None:
    state = State.PENDING
    for event in path:
        state = following(state, event)
    assert state is end
    assert state in FINISHED


def test_every_state_has_a_row_and_every_other_pair_is_an_error() -> None:
    assert set(TRANSITIONS) == set(State)
    for state in State:
        for event in Event:
            if event is not Event.ABORT and event not in TRANSITIONS[state]:
                with pytest.raises(IllegalTransitionError, match=event.name):
                    following(state, event)


def test_groups_do_not_overlap() -> None:
    assert not FINISHED & HALF_OPEN
    assert not (FINISHED | HALF_OPEN) & RECEIVING
