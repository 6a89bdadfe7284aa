"""Applying what arrives: a message wholly or not at all, then frame by frame (docs/protocol.md, sections 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunnel.endpoint import Broken, Refusal
from tunnel.mux import frames
from tunnel.mux.errors import LinkEnded, PeerLeft, RemoteProtocolError
from tunnel.mux.flow import Flow, FlowKind, State
from tunnel.mux.frames import Type
from tunnel.mux.lane import LaneState
from tunnel.mux.queries import Queries

if TYPE_CHECKING:
    from tunnel.mux.link import Link

_BROKEN = {int(member): member for member in Broken}
_REFUSALS = {int(member): member for member in Refusal}
_KINDS = {int(member): member for member in FlowKind}


LEAST_BACKLOG = 1024
"""Answers that may wait for a peer that asks and does not read."""


class Incoming:
    """The receiving half of a link."""

    def __init__(self, link: Link, queries: Queries) -> None:
        self._link = link
        self._queries = queries
        self._size = 0
        """Length of the message being applied."""
        self._handlers: dict[int, Callable[[int, int, memoryview], None]] = {
            Type.OPEN: self._open,
            Type.OPENED: self._opened,
            Type.REFUSED: self._refused,
            Type.DATA: self._data,
            Type.DATAGRAM: self._datagram,
            Type.CREDIT: self._credit,
            Type.EOF: self._eof,
            Type.RESET: self._reset,
            Type.QUERY: self._query,
            Type.REPLY: self._reply,
        }

    def receive(self, state: LaneState, message: bytes, now: float) -> None:
        """Apply one message of the lane's carrier."""
        number, control_section, batch_section = frames.split(message)
        control = frames.parse(control_section, numbered=False)
        batch: list[frames.Frame] = []
        new = bool(number) and state.accept_number(number)
        if new:
            try:
                batch = frames.parse(batch_section, numbered=True)
            except RemoteProtocolError as error:
                if state.poisoned == number:
                    raise self._link.break_link(f"batch {number} is malformed again: {error}") from error
                state.poisoned = number
                raise
        if state.watchdog is not None:
            state.watchdog.life(now, state.under_way > 0)
        for frame in control:
            self._control(state, frame, now)
        if new:
            self._size = len(message)
            self._apply(batch)
            if state.count_received(len(message), now):
                self._link.hurry_acks(state)
            else:
                self._link.arm_ack(state)

    def _control(self, state: LaneState, frame: frames.Frame, now: float) -> None:
        kind, detail, subject, payload = frame
        link = self._link
        if kind == Type.ACK:
            if detail > 1:
                raise RemoteProtocolError(f"acknowledgement for lane {detail}")
            lane = link.lanes[detail]
            if lane.acknowledge(subject, now):
                link.acknowledged(lane)
        elif kind == Type.PING:
            if len(state.control) > LEAST_BACKLOG:
                raise RemoteProtocolError("pings faster than pongs are taken")
            link.answer_ping(state, subject)
        elif kind == Type.PONG:
            link.pong(subject, now)
        elif kind == Type.WANT:
            link.shell.on_want(link.lanes[1].lane)
        elif kind == Type.GO_AWAY:
            raise PeerLeft(detail, str(payload, "utf-8", "replace"))
        else:
            raise RemoteProtocolError("hello on a carrier that has had one")

    def _apply(self, batch: list[frames.Frame]) -> None:
        handlers = self._handlers
        for kind, detail, subject, payload in batch:
            try:
                handlers[kind](subject, detail, payload)
            except LinkEnded:
                raise
            except Exception as error:  # a bug in one flow's handler must not stop the other flows of the link
                self._link.shell.on_fault(error)
                flow = self._link.flows.get(subject)
                if flow is not None and kind not in (Type.QUERY, Type.REPLY):
                    flow.break_off(Broken.RESET)

    def _find(self, subject: int) -> Flow | None:
        """The live flow; None for one that has finished. Raises LinkEnded for one that never was."""
        link = self._link
        flow = link.flows.get(subject)
        if flow is None and subject > (link.last_peer if link.is_peers(subject) else link.last_own):
            raise link.break_link(f"frame for flow {subject}, which was never opened")
        return flow

    def _keep(self, payload: memoryview) -> memoryview:
        """The payload, on its own when it would otherwise keep a message alive that is much larger."""
        return memoryview(bytes(payload)) if len(payload) * 4 < self._size else payload

    def _open(self, subject: int, detail: int, payload: memoryview) -> None:
        link = self._link
        if not link.is_peers(subject) or subject <= link.last_peer:
            raise link.break_link(f"flow {subject} opened out of order")
        if len(link.lanes[0].schedule.control) > 2 * link.limits.flows + LEAST_BACKLOG:
            raise link.break_link("flows opened faster than answers are taken")
        link.last_peer = subject
        kind = _KINDS.get(detail & 0xFF)
        flow = Flow(link, subject, kind or FlowKind.DATAGRAM, _NOBODY, State.OFFERED)
        link.flows[subject] = flow
        link.peer_flows += 1
        link.peer_pending += 1
        if kind is None:
            flow.refuse(Refusal.PROHIBITED, "unknown kind of flow")
        elif link.peer_flows > link.limits.flows or link.peer_pending > link.limits.pending:
            flow.refuse(Refusal.BUSY, "too many flows")
        elif not flow.admit():
            flow.refuse(Refusal.BUSY, "no memory for more flows")
        else:
            flow.peer_window(detail >> 8)
            flow.handler = link.acceptor.on_open(flow, bytes(payload))

    def _opened(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None and not flow.received_opened(detail):
            flow.violated()

    def _refused(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is None:
            return
        refusal = _REFUSALS.get(detail, Refusal.UNREACHABLE)
        if not flow.received_refused(refusal, str(payload, "utf-8", "replace")):
            flow.violated()

    def _data(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None and not flow.received_data(self._keep(payload)):
            flow.violated()

    def _datagram(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None and not flow.received_datagram(self._keep(payload)):
            flow.violated()

    def _credit(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None:
            flow.received_credit(frames.OFFSET.unpack(payload)[0])

    def _eof(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None and not flow.received_eof():
            flow.violated()

    def _reset(self, subject: int, detail: int, payload: memoryview) -> None:
        flow = self._find(subject)
        if flow is not None:
            flow.received_reset(_BROKEN.get(detail, Broken.RESET))

    def _query(self, subject: int, detail: int, payload: memoryview) -> None:
        query = self._queries.received_query(subject, bytes(payload))
        if query is not None:
            self._link.acceptor.on_query(query)

    def _reply(self, subject: int, detail: int, payload: memoryview) -> None:
        self._queries.received_reply(subject, bytes(payload))


class _Nobody:
    """Handler of a flow that is refused before anybody saw it."""

    def on_data(self, data: memoryview) -> None:
        """Never called."""

    def on_eof(self) -> None:
        """Never called."""

    def on_writable(self) -> None:
        """Never called."""

    def on_closed(self, broken: Broken | None) -> None:
        """Never called."""


_NOBODY = _Nobody()
