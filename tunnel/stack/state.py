"""The TCP state machine: RFC 9293, 3.3.2, as seen by a side that never opens.

One table; whoever changes a state asks `following`. PENDING stands for LISTEN with a SYN in hand: the answer waits
until the far side of the tunnel has connected.

    PENDING ─accept→ SYN_RECEIVED ─acked→ ESTABLISHED ─fin sent→ FIN_WAIT_1 ─acked→ FIN_WAIT_2 ─fin→ TIME_WAIT
                                              │fin                   └─fin→ CLOSING ─acked→ TIME_WAIT
                                              └→ CLOSE_WAIT ─fin sent→ LAST_ACK ─acked→ CLOSED
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.IntEnum):
    """State of one connection. Integers because their hash is fast: every packet looks into the sets below."""

    PENDING = enum.auto()
    SYN_RECEIVED = enum.auto()
    ESTABLISHED = enum.auto()
    FIN_WAIT_1 = enum.auto()
    FIN_WAIT_2 = enum.auto()
    CLOSE_WAIT = enum.auto()
    CLOSING = enum.auto()
    LAST_ACK = enum.auto()
    TIME_WAIT = enum.auto()
    CLOSED = enum.auto()


class Event(enum.Enum):
    """What moves a connection on."""

    ACCEPT = "accept"
    SYN_ACKED = "our SYN is acknowledged"
    FIN_SENT = "our FIN leaves"
    FIN_ACKED = "our FIN is acknowledged"
    FIN_RECEIVED = "the peer's FIN arrives in order"
    ABORT = "reset, refusal or time-out"


TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.PENDING: {Event.ACCEPT: State.SYN_RECEIVED},
    State.SYN_RECEIVED: {Event.SYN_ACKED: State.ESTABLISHED},
    State.ESTABLISHED: {Event.FIN_SENT: State.FIN_WAIT_1, Event.FIN_RECEIVED: State.CLOSE_WAIT},
    State.FIN_WAIT_1: {Event.FIN_ACKED: State.FIN_WAIT_2, Event.FIN_RECEIVED: State.CLOSING},
    State.FIN_WAIT_2: {Event.FIN_RECEIVED: State.TIME_WAIT},
    State.CLOSE_WAIT: {Event.FIN_SENT: State.LAST_ACK},
    State.CLOSING: {Event.FIN_ACKED: State.TIME_WAIT},
    State.LAST_ACK: {Event.FIN_ACKED: State.CLOSED},
    State.TIME_WAIT: {},
    State.CLOSED: {},
}

FINISHED: Final = frozenset({State.TIME_WAIT, State.CLOSED})
"""Both directions are over."""
HALF_OPEN: Final = frozenset({State.PENDING, State.SYN_RECEIVED})
"""The handshake is not complete."""

RECEIVING: Final = frozenset({State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2})
"""The peer may still send."""


class IllegalTransitionError(RuntimeError):
    """A defect of ours: that event cannot happen in that state."""


def following(state: State, event: Event) -> State:
    """The state after `event`. Every state but CLOSED may be aborted."""
    if event is Event.ABORT:
        return State.CLOSED
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransitionError(f"{event.name} in {state.name}") from None
