"""One flow's state: what it has to send, what it may send, what it has received (docs/protocol.md, section 5).

A flow never queues control frames. It remembers what is to be said (`Say`) and writes the frames when its lane can
take a batch, so a long time without carrier costs one flag, not a backlog.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Protocol

from tunnel import pieces
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux import frames, window
from tunnel.mux.frames import Buffer, Type

SEND_QUEUE = 512 << 10
"""Bytes a flow takes from its owner ahead of the lane; less when the peer's credit is less."""
DATAGRAM_QUEUE = 65536
"""Bytes of datagrams that wait; beyond it the oldest is dropped."""
DATAGRAM_COST = 256
"""Bytes that a datagram takes besides its payload, and counts for."""
DATAGRAM_AGE = 1.0
"""Seconds a datagram may wait; an older one is worth less than none."""


class FlowKind(enum.IntEnum):
    """What a flow carries. Part of the wire protocol."""

    STREAM = 1
    DATAGRAM = 2


class State(enum.Enum):
    """OPENING: we asked. OFFERED: the peer asked. Then OPEN. CLOSED: finished, frames for it are ignored."""

    OPENING = enum.auto()
    OFFERED = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Say(enum.IntFlag):
    """Control that is still to be written."""

    NOTHING = 0
    OPEN = 1
    OPENED = 2
    REFUSED = 4
    CREDIT = 8
    RESET = 16


class FlowHandler(EndpointHandler):
    """What a flow tells its owner: the endpoint's events, and for openers how the opening went. Override some."""

    def on_opened(self) -> None:
        """The peer accepted; sending is possible from now on."""

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        """The peer (or the link) refused; the last call."""

    def on_datagram(self, data: memoryview) -> None:
        """One datagram, whole."""

    def on_data(self, data: memoryview) -> None:
        """Bytes in order."""

    def on_eof(self) -> None:
        """No more bytes will come."""

    def on_writable(self) -> None:
        """There is room again."""

    def on_closed(self, broken: Broken | None) -> None:
        """The last call."""


class FlowOwner(Protocol):
    """What a flow needs of its link."""

    budget: window.Budget

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds."""

    def list_control(self, flow: Flow) -> None:
        """The flow has control to write."""

    def list_data(self, flow: Flow) -> None:
        """The flow has data, datagrams or eof to write."""

    def answered(self) -> None:
        """A flow the peer offered is not pending any more."""

    def forget(self, flow: Flow) -> None:
        """The flow is finished; ignore what still comes for it."""


class Flow:
    """A flow; for its owner an `Endpoint` (tunnel/endpoint.py). Attributes that are not documented are the link's."""

    __slots__ = (
        "_limit",
        "_link",
        "_offset",
        "_queue",
        "_queued",
        "_receive",
        "_starved",
        "body",
        "burst",
        "burst_at",
        "continuing",
        "control_listed",
        "data_listed",
        "deficit",
        "eof_received",
        "eof_sent",
        "eof_wanted",
        "handler",
        "id",
        "kind",
        "lane",
        "last_batch",
        "last_write",
        "moving",
        "outcome",
        "say",
        "state",
    )

    def __init__(self, link: FlowOwner, number: int, kind: FlowKind, handler: EndpointHandler, state: State) -> None:
        self._link = link
        self.id = number
        self.kind = kind
        self.handler = handler
        """Whom events go to; may be replaced at any time, e.g. by a splice's side in `on_opened`."""
        self.state = state
        self.body: bytes = b""
        self.say = Say.NOTHING
        self.outcome: tuple[int, str] = (0, "")
        self._queue: pieces.Pieces | deque[tuple[float, Buffer]] | None = None
        self._queued = 0
        self._offset = 0
        self._limit = window.INITIAL
        self._starved = False
        self._receive: window.ReceiveWindow | None = None
        """None for datagrams, and when the budget admitted no window or has it back."""
        self.eof_wanted = self.eof_sent = self.eof_received = False
        self.lane = 0
        self.last_batch = 0
        self.last_write = 0.0
        self.burst = 0
        self.burst_at = 0.0
        self.continuing = False
        self.deficit = 0
        self.moving = self.control_listed = self.data_listed = False

    def __repr__(self) -> str:
        return f"<Flow {self.id} {self.kind.name} {self.state.name}>"

    # The owner's side: Endpoint, and what acceptors and datagram flows have besides.

    def accept(self) -> None:
        """Tell the opener that the far side is connected. Nothing happens when the flow has ended meanwhile."""
        if self.state is State.OFFERED:
            self.state = State.OPEN
            self._link.answered()
            self._control(Say.OPENED)
            if self.pending:
                self._link.list_data(self)
            if self._starved:
                self._starved = False
                self.handler.on_writable()

    def refuse(self, refusal: Refusal, detail: str = "") -> None:
        """Tell the opener why not. No further call reaches the handler."""
        if self.state is State.OFFERED:
            self.outcome = (refusal, detail)
            self._close()
            self._control(Say.REFUSED)

    def send(self, data: memoryview) -> int:
        """Take a prefix of `data` as far as credit and queue allow."""
        if self.state is not State.OPEN or self.eof_wanted:
            self._starved = self.state is not State.CLOSED
            return 0
        size = len(data)
        budget = self._link.budget
        room = min(self._limit - self._offset, budget.buffer_share(SEND_QUEUE) - self._queued)
        if size > room:
            self._starved = True
            if room <= 0:
                return 0
            data, size = data[:room], room
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        pieces.push(queue, data)  # type: ignore[arg-type]  # a stream's queue holds pieces
        self._queued += size
        budget.buffer(size)
        self._offset += size
        if not self.data_listed:
            self._link.list_data(self)
        return size

    def send_datagram(self, data: Buffer) -> None:
        """Send one datagram (at most 65,535 bytes); when too many wait, the oldest goes. All wait for the opening."""
        if self.state is State.CLOSED:
            return
        if len(data) > frames.MAX_DATAGRAM:
            raise ValueError("datagram too long")
        queue: deque[tuple[float, Buffer]] = self._queue or deque()  # type: ignore[assignment]  # a datagram flow's queue holds pairs only
        self._queue = queue
        now = self._link.clock()
        queue.append((now, data))
        self._queue_size(self._queued + len(data) + DATAGRAM_COST)
        most = self._link.budget.buffer_share(DATAGRAM_QUEUE)
        while len(queue) > 1 and (self._queued > most or now - queue[0][0] > DATAGRAM_AGE):
            self._queue_size(self._queued - len(queue.popleft()[1]) - DATAGRAM_COST)
        if self.state is State.OPEN and not self.data_listed:
            self._link.list_data(self)

    def send_eof(self) -> None:
        """End our direction after what was taken so far."""
        if self.state is not State.CLOSED and not self.eof_wanted:
            self.eof_wanted = True
            if self.state is State.OPEN and not self.data_listed:
                self._link.list_data(self)

    def reset(self) -> None:
        """Drop both directions; no further call reaches the handler."""
        self.break_off(Broken.RESET)

    def break_off(self, broken: Broken) -> None:
        """Like `reset`, but tell the peer `broken`."""
        if self.state is State.CLOSED:
            self._release()
            return
        if self.state is State.OFFERED:
            self.refuse(Refusal.GONE)
            self._release()
            return
        unsaid = bool(self.say & Say.OPEN)
        self._close()
        self._release()
        if not unsaid:
            self.outcome = (broken, "")
            self._control(Say.RESET)

    def consumed(self, count: int) -> None:
        """`count` received bytes have left for good."""
        receive = self._receive
        if receive is None:
            return
        due = receive.consume(count)
        if self.state is State.CLOSED:
            if receive.consumed >= receive.received:
                self._release()
        elif due and not self.eof_received:
            self._control(Say.CREDIT)

    # The link's side.

    def admit(self) -> bool:
        """Reserve the first window of a stream; False when there is no memory for one."""
        if self.kind is FlowKind.STREAM:
            first = self._link.budget.admit()
            if not first:
                return False
            self._receive = window.ReceiveWindow(first)
        return True

    def peer_window(self, units: int) -> None:
        """The peer's frame named its first window."""
        self._limit = units * window.UNIT or window.INITIAL

    def fail(self, broken: Broken) -> None:
        """The flow was ended from outside: tell the handler, and nobody else."""
        opening = self.state is State.OPENING
        if self.state is State.CLOSED:
            return
        self._close()
        self._release()
        if opening:
            if isinstance(self.handler, FlowHandler):
                self.handler.on_refused(Refusal.GONE, "")
        else:
            self.handler.on_closed(broken)

    def violated(self) -> None:
        """The peer broke a rule that concerns this flow only: end it on both sides."""
        if self.state is not State.CLOSED:
            self.fail(Broken.PROTOCOL)
            self.outcome = (Broken.PROTOCOL, "")
            self._control(Say.RESET)

    def reopen(self) -> bool:
        """The link's other end is a new one. A flow that was never answered asks again; False for any other."""
        self.say = Say.NOTHING
        self.moving = False
        self.lane = self.last_batch = self.deficit = 0
        if self.state is not State.OPENING:
            return False
        self._control(Say.OPEN)
        return True

    def ask(self, body: bytes) -> None:
        """Say open, with this body."""
        self.body = body
        self._control(Say.OPEN)

    def received_opened(self, units: int) -> bool:
        """The peer accepted, with that first window; False when that cannot be."""
        if self.state is not State.OPENING:
            return False
        self.peer_window(units)
        self.state = State.OPEN
        self.body = b""
        if isinstance(self.handler, FlowHandler):
            self.handler.on_opened()
        if self.state is State.OPEN:
            if self.pending and not self.data_listed:
                self._link.list_data(self)
            if self._starved:
                self._starved = False
                self.handler.on_writable()
        return True

    def received_refused(self, refusal: Refusal, detail: str) -> bool:
        """The peer refused; False when that cannot be."""
        if self.state is not State.OPENING:
            return False
        self._close()
        if isinstance(self.handler, FlowHandler):
            self.handler.on_refused(refusal, detail)
        return True

    def received_data(self, data: memoryview) -> bool:
        """Bytes; False when the peer broke the rules."""
        receive = self._receive
        if receive is None or self.state is not State.OPEN or self.eof_received:
            return False
        try:
            receive.receive(len(data))
        except window.CreditExceeded:
            return False
        self.handler.on_data(data)
        return True

    def received_datagram(self, data: memoryview) -> bool:
        """A datagram; False when the peer broke the rules."""
        if self._receive is not None or self.state is not State.OPEN:
            return False
        if isinstance(self.handler, FlowHandler):
            self.handler.on_datagram(data)
        return True

    def received_credit(self, limit: int) -> None:
        """More may be sent; an older limit than the one known is ignored."""
        if limit > self._limit:
            self._limit = limit
            self.offer_room()

    def received_eof(self) -> bool:
        """The peer's direction ended; False when the peer broke the rules."""
        if self._receive is None or self.state is not State.OPEN or self.eof_received:
            return False
        self.eof_received = True
        self.handler.on_eof()
        self.finish_if_done()
        return True

    def received_reset(self, broken: Broken) -> None:
        """The peer ended the flow."""
        self.fail(broken)

    def offer_room(self) -> None:
        """Tell an owner that was turned away that there is room again."""
        if not self._starved or self.state is not State.OPEN or self._offset >= self._limit:
            return
        if not self._queued or self._queued * 2 <= self._link.budget.buffer_share(SEND_QUEUE):
            self._starved = False
            self.handler.on_writable()

    def finish_if_done(self) -> None:
        """End in order once both directions have ended."""
        if self.eof_sent and self.eof_received and self.state is State.OPEN:
            self._close()
            self.handler.on_closed(None)

    def write_control(self, parts: list[Buffer], now: float, round_trip: float) -> int:
        """Append what is to be said; return its length."""
        say, self.say = self.say, Say.NOTHING
        if say & Say.RESET:
            parts.append(frames.frame(Type.RESET, self.id, self.outcome[0]))
            return frames.HEADER_SIZE
        size = 0
        if say & Say.OPEN:
            parts.append(frames.frame(Type.OPEN, self.id, self.kind | self._units() << 8, self.body))
            size += frames.HEADER_SIZE + len(self.body)
        if say & Say.REFUSED:
            parts.append(frames.frame(Type.REFUSED, self.id, self.outcome[0], frames.text_payload(self.outcome[1])))
            return len(parts[-1])
        if say & Say.OPENED:
            parts.append(frames.header(Type.OPENED, 0, self.id, self._units()))
            size += frames.HEADER_SIZE
        if say & Say.CREDIT and self._receive is not None and self.state is not State.CLOSED:
            limit = self._receive.announce(now, round_trip, self._link.budget)
            parts.append(frames.credit_frame(self.id, limit))
            size += frames.HEADER_SIZE + 8
        return size

    def write_data(self, parts: list[Buffer], allowance: int) -> int:
        """Append one data frame of at most `allowance` bytes, and eof behind the last byte; return the length."""
        size, room = 0, min(allowance - frames.HEADER_SIZE, self._queued)
        if room > 0:
            queue: pieces.Pieces = self._queue  # type: ignore[assignment]  # a stream's queue holds pieces
            parts.append(frames.header(Type.DATA, room, self.id))
            size = frames.HEADER_SIZE + room
            self._queue_size(self._queued - room)
            while room:
                head = pieces.first(queue)
                length = len(head)
                if length > room:
                    parts.append(head[:room])
                    queue[0] = head[room:]
                    break
                parts.append(head)
                queue.popleft()
                room -= length
        if self.eof_wanted and not self._queued and not self.eof_sent:
            self.eof_sent = True
            parts.append(frames.header(Type.EOF, 0, self.id))
            size += frames.HEADER_SIZE
        return size

    def write_datagrams(self, parts: list[Buffer], allowance: int, forced: bool, now: float) -> int:
        """Append whole datagrams within `allowance` (when `forced`, at least one); return the length."""
        queue: deque[tuple[float, Buffer]] = self._queue or deque()  # type: ignore[assignment]  # a datagram flow's queue holds pairs only
        size = 0
        while queue:
            stamp, data = queue[0]
            length = len(data)
            if now - stamp <= DATAGRAM_AGE:
                if size + length + frames.HEADER_SIZE > allowance and not (forced and not size):
                    break
                parts.append(frames.header(Type.DATAGRAM, length, self.id))
                parts.append(data)
                size += frames.HEADER_SIZE + length
            queue.popleft()
            self._queue_size(self._queued - length - DATAGRAM_COST)
        return size

    @property
    def pending(self) -> bool:
        """Whether data, datagrams or eof are still to be written."""
        return self._queued > 0 or (self.eof_wanted and not self.eof_sent)

    @property
    def wants_more(self) -> bool:
        """Whether the flow would send more if lane and credit let it."""
        return self._queued > 0 or self._starved

    @property
    def held(self) -> int:
        """Bytes this flow makes the process hold: queued to send, and received but not consumed."""
        receive = self._receive
        return self._queued + (receive.received - receive.consumed if receive is not None else 0)

    def _queue_size(self, size: int) -> None:
        self._link.budget.buffer(size - self._queued)
        self._queued = size

    def _units(self) -> int:
        """The first window as frames name it."""
        first = self._receive.first if self._receive is not None else window.INITIAL
        return 0 if first == window.INITIAL else first // window.UNIT

    def _control(self, say: Say) -> None:
        self.say |= say
        if not self.control_listed:
            self._link.list_control(self)

    def _close(self) -> None:
        if self.state is State.OFFERED:
            self._link.answered()
        self.state = State.CLOSED
        self.body = b""
        self.say = Say.NOTHING
        self._queue = None
        self._queue_size(0)
        self._link.forget(self)
        receive = self._receive
        if receive is None or receive.consumed >= receive.received:
            self._release()

    def _release(self) -> None:
        receive, self._receive = self._receive, None
        if receive is not None:
            self._link.budget.release(receive)
