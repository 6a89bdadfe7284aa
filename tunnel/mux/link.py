"""A link: all flows and queries between one client process and one server process for one session.

The shell around it owns carriers and time. Its loop for each lane is: `attach` after the hellos, `receive` each
message that arrives, and, exactly when the carrier can take a message, `next_batch`, whose `None` means that there
is nothing to write until `on_ready`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux import frames, handshake, window
from tunnel.mux.errors import GoAway, HelloRefused, LinkEnded, RemoteProtocolError
from tunnel.mux.flow import Flow, FlowHandler, FlowKind, State
from tunnel.mux.frames import Buffer, Type
from tunnel.mux.handshake import Hello, Limits
from tunnel.mux.incoming import Incoming
from tunnel.mux.lane import Lane, LaneState
from tunnel.mux.placement import Placement
from tunnel.mux.queries import Queries, Query
from tunnel.mux.watchdog import CLIENT_IDLE, SERVER_IDLE, SERVER_PATIENCE, SUSPECT_AFTER, Due, Watchdog

FAR_FUTURE = float("inf")


class Role(enum.Enum):
    """Who dials."""

    CLIENT = 1
    SERVER = 0


class Acceptor(Protocol):
    """Whoever answers what the peer asks."""

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        """The peer opens a flow; call `flow.accept()` or `flow.refuse(…)` now or later, but not never."""

    def on_query(self, query: Query) -> None:
        """The peer asks a DNS question; call `query.reply(…)` now or later."""


class LinkShell(Protocol):
    """What a link tells whoever owns its carriers. All calls are synchronous and must not call back into the link."""

    def on_ready(self, lane: Lane) -> None:
        """`next_batch(lane)` has something again."""

    def on_want(self, lane: Lane) -> None:
        """Client: a carrier for this lane is needed. May be called again at any time until it is attached."""

    def on_suspect(self, lane: Lane) -> None:
        """The lane's carrier is silent. Client: dial a replacement; server: end it."""

    def on_timer(self, at: float) -> None:
        """`on_timeout` should be called at `at`, which is earlier than what `next_timeout` said last."""

    def on_fault(self, error: Exception) -> None:
        """A handler raised; its flow was ended. For the log."""


class Link:
    """One end of a link. `instance`: 16 random bytes; `clock`: monotonic seconds."""

    def __init__(
        self,
        *,
        role: Role,
        session: str,
        instance: bytes,
        acceptor: Acceptor | None,
        shell: LinkShell,
        clock: Callable[[], float],
        budget: window.Budget,
        limits: Limits | None = None,
        software: str = "",
    ) -> None:
        self.role = role
        self.session = session
        self.instance = instance
        self.peer_instance = b""
        self._acceptor = acceptor
        self.shell = shell
        self.clock = clock
        self.budget = budget
        self.limits = limits or Limits()
        self.peer_limits = Limits()
        self.software = software
        self.lanes = (LaneState(Lane.INTERACTIVE), LaneState(Lane.BULK))
        self.flows: dict[int, Flow] = {}
        self.round_trip = 0.0
        """Seconds, smoothed from pongs; 0 before the first."""
        self.ended: Broken | None = None
        self.detached_at: float | None = clock()
        """Since when the interactive lane has no carrier; None while it has one."""
        self.last_own = -1 if role is Role.CLIENT else 0
        self.last_peer = 0
        self.peer_flows = 0
        self.peer_pending = 0
        self._pings: dict[int, float] = {}
        self._last_ping = 0
        self._ack_urgent = False
        self._wake_at = FAR_FUTURE
        self._interactive = self.lanes[Lane.INTERACTIVE]
        self._bulk = self.lanes[Lane.BULK]
        self._placement = Placement(self, self._interactive, self._bulk)
        self._queries = Queries(lambda: self.wake(self._interactive))
        self._incoming = Incoming(self, self._queries)

    @property
    def acceptor(self) -> Acceptor:
        """Who answers the peer; may be set after the link is made, but before its first carrier."""
        if self._acceptor is None:
            raise RuntimeError("the link has no acceptor yet")
        return self._acceptor

    @acceptor.setter
    def acceptor(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor

    # For those who use flows.

    def open(self, kind: FlowKind, body: bytes, handler: FlowHandler) -> Flow:
        """Open a flow; `body` is an encoded `Open`. Without a carrier the open waits.

        When memory is at its ceiling or the link has ended, `handler.on_refused` is called before this returns.
        """
        if len(body) > frames.MAX_OPEN:
            raise ValueError("open body too long")
        self.last_own += 2
        flow = Flow(self, self.last_own, kind, handler, State.OPENING)
        refusal = Refusal.GONE if self.ended is not None else None
        if refusal is None and not flow.admit():
            refusal = Refusal.BUSY
        if refusal is not None:
            flow.state = State.CLOSED
            handler.on_refused(refusal, "")
            return flow
        self.flows[flow.id] = flow
        flow.ask(body)
        return flow

    def query(self, message: bytes, on_reply: Callable[[bytes | None], None]) -> None:
        """Ask a raw DNS question. `on_reply` gets None when there is no answer; without a live carrier at once."""
        if not self.alive(Lane.INTERACTIVE):
            on_reply(None)
            return
        self._queries.ask(message, on_reply, self.clock())
        self.arm(self._queries.deadline())

    @property
    def dials(self) -> bool:
        """Whether this end is the one that dials."""
        return self.role is Role.CLIENT

    @property
    def attached(self) -> bool:
        """Whether the interactive lane has a carrier."""
        return self._interactive.attached is not None

    def alive(self, lane: Lane) -> bool:
        """Whether the lane has a carrier, and one that is not suspect."""
        watchdog = self.lanes[lane].watchdog
        return watchdog is not None and not watchdog.suspect

    def heard(self, flow: Flow) -> bool:
        """Whether the peer has acknowledged everything that was said on this flow."""
        return not flow.say and not flow.pending and flow.last_batch <= self.lanes[flow.lane].acked

    @property
    def held(self) -> int:
        """Bytes the link holds: queued, unacknowledged, and received but not consumed."""
        flows = sum(flow.held for flow in self.flows.values())
        return flows + sum(state.under_way for state in self.lanes) + self._queries.held

    def end(self, broken: Broken) -> None:
        """End everything; nothing more is sent."""
        if self.ended is not None:
            return
        self.ended = broken
        for state in self.lanes:
            state.detach()
        for flow in list(self.flows.values()):
            self.guard(flow.fail, broken)
        self._queries.drop()

    # For the shell: carriers.

    def hello(self, lane: Lane) -> bytes:
        """Client: the first message of a new carrier for `lane`; counts the generation up."""
        state = self.lanes[lane]
        state.generation += 1
        return self._hello(state, state.generation, handshake.OLDEST, handshake.NEWEST).encode()

    def attach(self, answer: Hello) -> None:
        """Client: the server answered this hello; fences the lane's older carrier. Raises RemoteProtocolError."""
        state = self.lanes[answer.lane]
        if answer.session != self.session or answer.peer_instance != self.instance:
            raise RemoteProtocolError("the answer is for another link")
        if answer.generation > state.generation or answer.generation <= (state.attached or 0):
            raise RemoteProtocolError("the answer is for an older carrier")
        if answer.instance != self.peer_instance:
            if answer.lane is not Lane.INTERACTIVE:
                raise RemoteProtocolError("the other end of the link changed")
            if self.peer_instance:
                self._restart()
            self.peer_instance = answer.instance
        self.peer_limits = answer.limits
        self._attach(state, answer.generation, answer.received)

    def answer(self, hello: Hello) -> bytes:
        """Server: resume with this hello; returns the answer. Raises HelloRefused or RemoteProtocolError."""
        state = self.lanes[hello.lane]
        version = handshake.choose_version(hello)
        if hello.session != self.session:
            raise HelloRefused(GoAway.SESSION, "the certificate is for another session")
        if hello.generation <= state.generation:
            raise HelloRefused(GoAway.STALE, "a newer carrier is attached")
        self.peer_instance = hello.instance
        self.peer_limits = hello.limits
        self._attach(state, hello.generation, hello.received if hello.peer_instance == self.instance else 0)
        return self._hello(state, hello.generation, version, version).encode()

    def renew(self, instance: bytes) -> None:
        """Client: the link cannot go on (its linger is over, or the peer broke the protocol); begin another one.

        Its flows are lost, except those whose open was never answered. `instance`: 16 fresh random bytes.
        """
        self.instance = instance
        self.peer_instance = b""
        self.ended = None
        self._restart()

    def detach(self, lane: Lane, generation: int) -> bool:
        """The carrier of this generation is gone; False when a newer one has taken its place."""
        state = self.lanes[lane]
        if state.attached != generation:
            return False
        state.detach()
        if lane is Lane.INTERACTIVE:
            self.detached_at = self.clock()
        else:
            self._placement.lost_bulk()
        self._ack_again()
        return True

    def receive(self, lane: Lane, message: bytes) -> None:
        """A message arrived. Raises RemoteProtocolError (the carrier must end), LinkEnded (the link has), PeerLeft."""
        if self.ended is None:
            self._incoming.receive(self.lanes[lane], message, self.clock())

    def next_batch(self, lane: Lane) -> bytes | None:
        """The next message for the lane's carrier, composed now; None until `on_ready`."""
        state = self.lanes[lane]
        if state.attached is None:
            return None
        now = self.clock()
        if state.replaying:
            return state.next_replay(self._control(state))
        room = state.room
        if room and (state.schedule or (state is self._interactive and self._queries)):
            parts: list[Buffer] = []
            if state is self._interactive and self._queries:
                room -= self._queries.write(parts, room)
            wrote = state.schedule.fill(parts, room, state.sent + 1, now, self.round_trip)
            if parts:
                message = state.keep(self._control(state), parts, now)
                self.arm(now + SUSPECT_AFTER)
                for flow, size in wrote:
                    self._placement.wrote(flow, size, now)
                return message
        if state.control or self._ack_urgent:
            control = self._control(state)
            if control:
                return frames.message(0, control)
        state.idle = True
        return None

    def next_timeout(self) -> float | None:
        """When to call `on_timeout`; None: no need before `on_timer`."""
        deadlines = [self._queries.deadline(), self._placement.want_at]
        for state in self.lanes:
            deadlines.append(state.ack_due)
            if state.watchdog is not None:
                deadlines.append(state.watchdog.deadline())
        self._wake_at = min((at for at in deadlines if at is not None), default=FAR_FUTURE)
        return None if self._wake_at == FAR_FUTURE else self._wake_at

    def on_timeout(self) -> None:
        """Do what is due; harmless when nothing is."""
        now = self.clock()
        self._wake_at = FAR_FUTURE
        self._queries.expire(now)
        for state in self.lanes:
            if state.ack_due is not None and state.ack_due <= now:
                state.ack_due = None
                self.hurry_acks(state)
            watchdog = state.watchdog
            if watchdog is None or watchdog.suspect:
                continue
            due = watchdog.check(now)
            if due is Due.PING:
                self.ping(state)
            elif due is Due.SUSPICION:
                self.shell.on_suspect(state.lane)
                for other in self.lanes:
                    if other is not state and other.watchdog is not None and not other.watchdog.suspect:
                        self.ping(other)  # what silenced one carrier has probably silenced both
        self._placement.on_timeout(now)

    def bulk_is_idle(self, seconds: float) -> bool:
        """Whether the bulk carrier has had nothing to do for so long that it can be closed."""
        bulk = self._bulk
        quiet = not bulk.under_way and not bulk.owes_ack and not bulk.schedule and not self._placement.busy
        return bulk.attached is not None and quiet and self.clock() - bulk.active_at >= seconds

    # For flows (FlowOwner).

    def list_control(self, flow: Flow) -> None:
        """The flow has control to write."""
        self._placement.list_control(flow)

    def list_data(self, flow: Flow) -> None:
        """The flow has data, datagrams or eof to write."""
        self._placement.list_data(flow)

    def answered(self) -> None:
        """A flow the peer offered is not pending any more."""
        self.peer_pending -= 1

    def forget(self, flow: Flow) -> None:
        """The flow is finished."""
        if self.flows.pop(flow.id, None) is not None and self.is_peers(flow.id):
            self.peer_flows -= 1
        self._placement.forget(flow)

    # For Incoming and Placement.

    def is_peers(self, number: int) -> bool:
        """Whether the peer opens flows with such ids."""
        return number & 1 != self.role.value

    def guard(self, call: Callable[..., object], *arguments: object) -> None:
        """Call a handler; what it raises costs its own flow only."""
        try:
            call(*arguments)
        except Exception as error:  # a bug in one flow's handler must not stop the other flows of the link
            self.shell.on_fault(error)

    def acknowledged(self, state: LaneState) -> None:
        """The lane has room again, and flows that wait to change lane may do so."""
        if state is self._interactive and self._placement.busy:
            self._placement.acknowledged()
        if state.schedule or (state is self._interactive and self._queries):
            self.wake(state)

    def hurry_acks(self, state: LaneState) -> None:
        """What is owed on `state` should go out now, on the interactive lane when it has a carrier."""
        self._ack_urgent = True
        self.wake(self._interactive if self.attached else state)

    def answer_ping(self, state: LaneState, token: int) -> None:
        """Pong, with every acknowledgement owed."""
        state.control.append(frames.frame(Type.PONG, token))
        self._ack_urgent = True
        self.wake(state)

    def pong(self, token: int, now: float) -> None:
        """Learn the round trip."""
        sent = self._pings.pop(token, None)
        if sent is not None:
            sample = now - sent
            smooth = self.round_trip
            self.round_trip = sample if not smooth or sample < smooth else smooth * 0.875 + sample * 0.125
            for state in self.lanes:
                state.round_trip = self.round_trip

    def arm_ack(self, state: LaneState) -> None:
        """An acknowledgement is owed by `state.ack_due`."""
        self.arm(state.ack_due)

    def wake(self, state: LaneState) -> None:
        """The lane has something to write."""
        if state.attached is None:
            if state is self._bulk and state.schedule:
                self._placement.want_bulk()
        elif state.idle:
            state.idle = False
            self.shell.on_ready(state.lane)

    def arm(self, at: float | None) -> None:
        """`on_timeout` has something to do at `at`."""
        if at is not None and at < self._wake_at:
            self._wake_at = at
            self.shell.on_timer(at)

    def ping(self, state: LaneState) -> None:
        """Have the peer answer, and acknowledge what it has."""
        now = self.clock()
        self._last_ping += 1
        if len(self._pings) > 64:
            self._pings.clear()
        self._pings[self._last_ping] = now
        state.control.append(frames.frame(Type.PING, self._last_ping))
        if state.watchdog is not None:
            state.watchdog.pinged(now)
        self.wake(state)
        self.arm(now + SUSPECT_AFTER)

    # Inside.

    def _control(self, state: LaneState) -> list[bytes]:
        """The control section of the message about to be written: what the lane has, and every owed acknowledgement."""
        control = state.control
        state.control = []
        control.extend(other.ack() for other in self.lanes if other.owes_ack)
        self._ack_urgent = False
        return control

    def _hello(self, state: LaneState, generation: int, oldest: int, newest: int) -> Hello:
        return Hello(
            oldest,
            newest,
            self.software,
            self.session,
            self.instance,
            self.peer_instance,
            state.lane,
            generation,
            state.received,
            self.limits,
        )

    def _attach(self, state: LaneState, generation: int, peer_received: int) -> None:
        now = self.clock()
        if self.role is Role.CLIENT:
            watchdog = Watchdog(now, idle=CLIENT_IDLE, patience=state.patience(SUSPECT_AFTER))
        else:
            watchdog = Watchdog(now, idle=SERVER_IDLE, patience=SERVER_PATIENCE)
        state.attach(generation, peer_received, watchdog, now)
        state.idle = False
        if state is self._interactive:
            self.detached_at = None
        self._placement.attached(state)
        self.acknowledged(state)
        self._ack_again()
        self.ping(state)

    def _ack_again(self) -> None:
        """A carrier took everything with it that was written and not received: acknowledgements of both lanes too, and
        the hello of its successor repeats only those of its own."""
        for state in self.lanes:
            state.ack_again()
            if state.owes_ack:
                self.hurry_acks(state)

    def _restart(self) -> None:
        """The other end forgot us: numbers start again, opened flows are lost, unanswered ones ask again."""
        if self.attached:
            self.detached_at = self.clock()
        for state in self.lanes:
            state.detach()
            state.restart()
            state.schedule.clear()
        self._placement.restart()
        self._pings.clear()
        self.last_peer = 0
        for flow in sorted(self.flows.values(), key=lambda flow: flow.id):
            if flow.state is State.OPENING:
                flow.reopen()
            else:
                self.guard(flow.fail, Broken.LINK_LOST)
        self._queries.drop()

    def break_link(self, text: str) -> LinkEnded:
        """The peer broke the protocol beyond repair; returns the error to raise."""
        self.end(Broken.PROTOCOL)
        return LinkEnded(text)
