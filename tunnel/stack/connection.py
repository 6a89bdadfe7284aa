"""One TCP connection with the peer: the state machine around a sender and a receive window (RFC 9293).

The file is one because a segment touches everything; what can stand alone (state table, sender, window, reassembly,
round-trip time, header building) does.
"""

from __future__ import annotations

from typing import Protocol

from tunnel.endpoint import Broken, Endpoint, EndpointHandler, Refusal
from tunnel.stack.address import Address, host_text
from tunnel.stack.ip import MAX_PACKET
from tunnel.stack.limits import Limits
from tunnel.stack.reassembly import Reassembly
from tunnel.stack.rtt import RttEstimator
from tunnel.stack.segment import (
    ACK,
    DEFAULT_MSS4,
    DEFAULT_MSS6,
    FIN,
    PSH,
    RST,
    SMALLEST_MSS,
    SYN,
    SegmentBuilder,
    SynOptions,
    syn_options,
)
from tunnel.stack.sender import Record, Sender
from tunnel.stack.state import FINISHED, HALF_OPEN, RECEIVING, Event, State, following
from tunnel.stack.timers import Timer
from tunnel.stack.vocabulary import Packet
from tunnel.stack.window import MAX_UNSCALED, Allowance, Pool, ReceiveWindow

WINDOW_SCALE = 5
"""Ours: 65535 << 5 covers the largest receive buffer."""


class Owner(Protocol):
    """What a connection needs from the table it is in."""

    limits: Limits
    pool: Pool

    def output(self, packet: Packet) -> None:
        """Send this packet with the next flush."""

    def make_ready(self, connection: TcpConnection, *, urgent: bool) -> None:
        """Call `transmit` with the next flush; at once, if urgent."""

    def schedule(self, connection: TcpConnection) -> None:
        """Its deadline was set."""

    def half_open_ended(self, connection: TcpConnection) -> None:
        """It left the handshake, forwards or for good."""

    def refused(self, connection: TcpConnection, refusal: Refusal) -> None:
        """Answer the SYN, remember the answer, forget the connection."""

    def finished(self, connection: TcpConnection, *, now: float | None = None, last: Packet = ()) -> None:
        """Forget it. With `now`: in TIME-WAIT, where `last` (an ACK) answers repetitions of its FIN."""


class TcpConnection(Endpoint):
    """A connection that the laptop opened. An `Endpoint` (see `tunnel.endpoint`) plus `accept` and `refuse`.

    `send`, `send_eof` may be used before `accept`: the bytes leave once the handshake is through.
    """

    def __init__(
        self,
        owner: Owner,
        key: bytes,
        quote: bytes,
        addresses: bytes,
        ports: tuple[int, int],
        syn: tuple[int, int, SynOptions],
        initial_sequence: int,
        now: float,
    ) -> None:
        """`quote`: the SYN as an IP packet. `addresses`, `ports`: the peer's, then ours. `syn`: its sequence
        number, window and options."""
        sequence, window, options = syn
        limits = owner.limits
        self._owner = owner
        self._limits = limits
        self.key = key
        self.quote = quote
        self.addresses = addresses
        self.ports = ports
        self._state = State.PENDING
        self._handler: EndpointHandler | None = None
        self._options = options
        half = len(addresses) >> 1
        overhead = 40 if half == 4 else 60
        default = DEFAULT_MSS4 if half == 4 else DEFAULT_MSS6
        mss = max(min(options.mss or default, limits.mtu - overhead), SMALLEST_MSS)
        self._offered_mss = min(limits.mss, limits.mtu - overhead)
        largest = MAX_PACKET - overhead
        self._builder = SegmentBuilder(addresses[half:] + addresses[:half], ports[1], ports[0], mss)
        self._sender = Sender(
            initial_sequence + 1,
            Allowance(owner.pool, limits.base_buffer, limits.max_buffer),
            largest - largest % mss,
        )
        self._sender.offer(initial_sequence + 1, window)
        self._peer_scale = 0
        self._peer_window_seq = sequence + 1
        self.received = sequence + 1
        """The next sequence number expected from the peer (RCV.NXT)."""
        scale = 0 if options.window_scale is None else WINDOW_SCALE
        ceiling = limits.max_buffer if scale else min(MAX_UNSCALED, limits.max_buffer)
        base = min(limits.base_buffer, ceiling)
        self._receive_allowance = Allowance(owner.pool, base, ceiling)
        self._window = ReceiveWindow(self.received, self._receive_allowance, scale)
        self._reassembly = Reassembly(limits.max_out_of_order)
        self._fin_at: int | None = None
        self._rtt = RttEstimator(limits.rto_initial, limits.rto_min, limits.rto_max)
        self._heard = now
        self._probes = 0
        self._ack_due = False
        self._ready = False
        self._blocked_writer = False
        self._timer = Timer.DIAL
        self.deadline: float | None = now + limits.dial_timeout
        self.queued_at: float | None = None

    # What the owner may ask.

    @property
    def local(self) -> Address:
        """The destination that the laptop dialled."""
        return Address(host_text(self.addresses[len(self.addresses) >> 1 :]), self.ports[1])

    @property
    def remote(self) -> Address:
        """The laptop's side."""
        return Address(host_text(self.addresses[: len(self.addresses) >> 1]), self.ports[0])

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._state

    def attach(self, handler: EndpointHandler) -> None:
        """Set who is told what happens. The stack does it with what `on_tcp` returned."""
        self._handler = handler

    def accept(self) -> None:
        """The far side has connected: answer the SYN. Without effect when the peer has given up meanwhile."""
        if self._state is State.PENDING:
            self._state = following(self._state, Event.ACCEPT)
            self._timer = Timer.NONE
            self._ack_due = True
            self._make_ready(urgent=False)

    def refuse(self, refusal: Refusal) -> None:
        """The far side did not connect: say so. The connection is gone; no further call comes."""
        if self._state is State.PENDING:
            self._handler = None
            self._end()
            self._owner.refused(self, refusal)

    def send(self, data: memoryview) -> int:
        """See `Endpoint`."""
        sender = self._sender
        if self._state in FINISHED or sender.fin_wanted:
            return 0
        taken = sender.take(data)
        if taken < len(data):
            self._blocked_writer = True
        if taken and not self._ready and self._state not in HALF_OPEN:
            # With nothing in flight no acknowledgement will come to trigger the next flush.
            self._make_ready(urgent=not sender.flight)
        return taken

    def send_eof(self) -> None:
        """See `Endpoint`."""
        if self._state not in FINISHED and not self._sender.fin_wanted:
            self._sender.fin_wanted = True
            if self._state not in HALF_OPEN:
                self._make_ready(urgent=False)

    def reset(self) -> None:
        """See `Endpoint`. Before `accept` it is a refusal."""
        if self._state is State.PENDING:
            self.refuse(Refusal.REFUSED)
        elif self._state not in FINISHED:
            self._send_reset()
            self._end()
            self._owner.finished(self)
        self._handler = None

    def consumed(self, count: int) -> None:
        """See `Endpoint`."""
        self._window.consume(count)
        if not self._ack_due and self._state in RECEIVING and self._window.update_is_due():
            self._ack_due = True
            self._make_ready(urgent=False)

    # What the peer sends.

    def supersede(self) -> None:
        """A new SYN from the same port before the handshake is through: the peer has given this attempt up."""
        self._break(Broken.RESET)

    def segment(self, packet: bytes, start: int, end: int, wire: tuple[int, int, int, int], now: float) -> None:
        """A segment other than a first SYN. `wire`: its sequence, acknowledgement, flags and window fields."""
        sequence, acknowledgement, flags, window = wire
        self._heard = now
        self._probes = 0
        received = self.received
        sequence = received + ((sequence - received + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if flags & (SYN | RST) or not flags & ACK:
            self._unusual(sequence, flags)
            return
        sender = self._sender
        unacknowledged = sender.unacknowledged
        acknowledgement = unacknowledged + ((acknowledgement - unacknowledged + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        size = end - start
        if self._state in HALF_OPEN:
            if self._state is State.PENDING or acknowledgement != sender.next:
                self._reply_reset(acknowledgement)
                return
            if sequence == received:
                self._establish(now)
        if sequence != received and (sequence + size + (flags & FIN) <= received or sequence > self._window.edge):
            self._acknowledge_now()  # a repetition, a probe, or beyond the window (3.10.7.4)
            return
        if acknowledgement > sender.next:
            self._acknowledge_now()
            return
        if acknowledgement >= unacknowledged:
            self._acknowledged(acknowledgement, sequence, window << self._peer_scale, size, flags, now)
        if self._state in FINISHED:
            return
        if size or flags & FIN:
            self._payload(packet, start, size, sequence, flags & FIN, now)
        if sender.waiting_bytes or sender.fin_wanted or self._ack_due:
            self._make_ready(urgent=False)

    def _unusual(self, sequence: int, flags: int) -> None:
        """RST, SYN, or no ACK (RFC 5961: only an exact RST resets, anything doubtful is challenged)."""
        if flags & RST:
            if sequence == self.received:
                self._break(Broken.RESET)
            elif self.received < sequence <= self._window.edge:
                self._acknowledge_now()
        elif flags & SYN and self._state is State.SYN_RECEIVED:
            self._ack_due = True
            self._make_ready(urgent=False)
        elif flags & SYN:
            self._acknowledge_now()

    def _establish(self, now: float) -> None:
        self._state = following(self._state, Event.SYN_ACKED)
        self.quote = b""
        if self._options.window_scale is not None:
            self._peer_scale = self._options.window_scale
        self._set_timer(Timer.KEEPALIVE, now + self._limits.keepalive_idle)
        self._owner.half_open_ended(self)

    def _acknowledged(
        self, acknowledgement: int, sequence: int, window: int, size: int, flags: int, now: float
    ) -> None:
        """Process the acknowledgement and window fields of an acceptable segment."""
        sender = self._sender
        before = sender.edge
        if sequence >= self._peer_window_seq:
            self._peer_window_seq = sequence
            sender.offer(acknowledgement, window)
        if acknowledgement > sender.unacknowledged:
            repairing = sender.recover is not None
            record = sender.acknowledge(acknowledgement)
            self._rtt.progress()
            if record is not None and not record.repeated and not repairing:
                self._rtt.sample(now - record.sent_at)
            if sender.flight:
                self._set_timer(Timer.RETRANSMIT, now + self._rtt.rto)
                if sender.recover is not None:
                    self._repeat(now)
            else:
                self._timer = Timer.NONE
                if sender.fin_sent:
                    self._fin_acknowledged(now)
                    if self._state in FINISHED:
                        return
                self._rest(now)
            if self._blocked_writer and sender.room >= self._limits.base_buffer >> 1:
                self._blocked_writer = False
                if self._handler is not None:
                    self._handler.on_writable()
        elif sender.flight and not size and not flags & FIN and sender.edge == before:
            sender.duplicates += 1
            if sender.duplicates == 3 and sender.recover is None:
                self._repeat(now)

    def _payload(self, packet: bytes, start: int, size: int, sequence: int, fin: int, now: float) -> None:
        """Deliver what is in order, keep what is ahead, and remember that an answer is due."""
        self._ack_due = True
        if self._state not in RECEIVING:
            return
        if fin:
            self._fin_at = sequence + size
        data = memoryview(packet)[start : start + size]
        edge = self._window.edge
        if sequence + size > edge:
            data = data[: max(0, edge - sequence)]
            if self._fin_at is not None and self._fin_at > edge:
                self._fin_at = None
        if sequence > self.received:
            if data:
                self._reassembly.add(sequence, data)
            self._acknowledge_now()
            return
        if sequence < self.received:
            data = data[self.received - sequence :]
        if data:
            self.received += len(data)
            if self._handler is not None:
                self._handler.on_data(data)
            if self._reassembly:
                self._drain()
        if self._fin_at == self.received and self._state not in FINISHED:
            self._fin_received(now)

    def _drain(self) -> None:
        """Deliver what a filled gap released."""
        while self._state not in FINISHED and (data := self._reassembly.take(self.received)) is not None:
            self.received += len(data)
            if self._handler is not None:
                self._handler.on_data(data)

    def _fin_received(self, now: float) -> None:
        self.received += 1
        self._state = following(self._state, Event.FIN_RECEIVED)
        self._reassembly.clear()
        if self._handler is not None:
            self._handler.on_eof()
        if self._state is State.TIME_WAIT:
            self._close(now)

    def _fin_acknowledged(self, now: float) -> None:
        self._state = following(self._state, Event.FIN_ACKED)
        if self._state in FINISHED:
            self._close(now)

    # What leaves.

    def transmit(self, now: float) -> int:
        """Send what may leave now; bytes of payload that left. Called by the flush, never calls the handler."""
        self._ready = False
        state = self._state
        if state in HALF_OPEN:
            if self._ack_due and state is State.SYN_RECEIVED:
                self._ack_due = False
                self._send_syn_ack(now)
            return 0
        if state in FINISHED:
            return 0
        sent = 0
        sender = self._sender
        budget = self._limits.turn_bytes
        while sent < budget and (record := sender.next_record(now)) is not None:
            self._emit(record)
            sent += record.length
            if record.fin:
                self._state = following(self._state, Event.FIN_SENT)
        if sent >= budget:
            self._make_ready(urgent=False)
        if self._ack_due:
            self._acknowledge_now()
        if sender.flight:
            if self._timer is not Timer.RETRANSMIT:
                self._rtt.progress()
                self._set_timer(Timer.RETRANSMIT, now + self._rtt.rto)
        elif self._timer is not Timer.PERSIST:
            self._rest(now)
        return sent

    def _emit(self, record: Record) -> None:
        self._ack_due = False
        flags = ACK | FIN | PSH if record.fin else ACK | PSH
        header = self._builder.build(
            record.begin, self.received, flags, self._window.field(self.received), record.length
        )
        self._owner.output([header, *record.buffers])

    def _acknowledge_now(self) -> None:
        """A bare ACK, ordered before anything the flush will cut."""
        self._ack_due = False
        self._owner.output([self._build_ack()])

    def _build_ack(self) -> bytes:
        window = self._window.field(self.received)
        return self._builder.build(self._sender.next, self.received, ACK, window, 0)

    def _send_syn_ack(self, now: float) -> None:
        scale = None if self._options.window_scale is None else self._window.scale
        options = syn_options(self._offered_mss, scale)
        window = self._window.field(self.received, scaled=False)
        first = self._sender.next - 1
        self._owner.output([self._builder.build(first, self.received, SYN | ACK, window, 0, options)])
        self._set_timer(Timer.HANDSHAKE, now + self._rtt.rto)

    def _send_reset(self) -> None:
        self._owner.output([self._builder.build(self._sender.next, self.received, RST | ACK, 0, 0)])

    def _reply_reset(self, acknowledgement: int) -> None:
        """Answer a segment that acknowledges what we never sent (3.10.7.4, SYN-RECEIVED)."""
        self._owner.output([self._builder.build(acknowledgement, 0, RST, 0, 0)])

    def _repeat(self, now: float) -> None:
        record = self._sender.repeat()
        if record is not None:
            self._emit(record)
            self._set_timer(Timer.RETRANSMIT, now + self._rtt.rto)

    # Time.

    def expire(self, now: float) -> None:
        """The deadline has come."""
        timer, self._timer, self.deadline = self._timer, Timer.NONE, None
        if timer is Timer.DIAL:
            self._break(Broken.TIMED_OUT)
            return
        if timer is Timer.NONE:
            return
        if timer is Timer.KEEPALIVE:
            idle = self._idle_limit()
            if not self._probes and self._heard + idle > now:
                self._set_timer(Timer.KEEPALIVE, self._heard + idle)
                return
        self._probes += 1
        limits = self._limits
        if self._probes > (limits.max_syn_acks if timer is Timer.HANDSHAKE else limits.max_retransmits):
            self._break(Broken.TIMED_OUT, tell=True)
        elif timer is Timer.HANDSHAKE:
            self._rtt.back_off()
            self._send_syn_ack(now)
        elif timer is Timer.RETRANSMIT:
            self._rtt.back_off()
            self._repeat(now)
        else:
            # A segment just below the window is answered with where the peer stands (3.8.4, 3.8.6.1).
            window = self._window.field(self.received)
            self._owner.output([self._builder.build(self._sender.next - 1, self.received, ACK, window, 0)])
            if timer is Timer.PERSIST:
                self._rtt.back_off()
                self._set_timer(timer, now + self._rtt.rto)
            else:
                self._set_timer(timer, now + limits.keepalive_interval)

    def _idle_limit(self) -> float:
        if self._state is State.ESTABLISHED:
            return self._limits.keepalive_idle
        return self._limits.keepalive_half_closed

    def _rest(self, now: float) -> None:
        """Nothing is in flight: wait for a window, or for a sign of life."""
        if self._sender.blocked:
            self._set_timer(Timer.PERSIST, now + self._rtt.rto)
        else:
            self._set_timer(Timer.KEEPALIVE, now + self._idle_limit())

    def _set_timer(self, timer: Timer, deadline: float) -> None:
        self._timer = timer
        self.deadline = deadline
        queued = self.queued_at
        if queued is None or deadline < queued:
            self._owner.schedule(self)

    # Ends.

    def _make_ready(self, *, urgent: bool) -> None:
        if not self._ready:
            self._ready = True
            self._owner.make_ready(self, urgent=urgent)

    def _break(self, broken: Broken, *, tell: bool = False) -> None:
        """The connection ends out of order."""
        if tell:
            self._send_reset()
        self._end()
        self._owner.finished(self)
        self._tell_closed(broken)

    def _close(self, now: float) -> None:
        """Both directions ended in order (the state says so already)."""
        if self._ack_due:
            self._acknowledge_now()
        if self._state is State.TIME_WAIT:
            self._owner.finished(self, now=now, last=[self._build_ack()])
        else:
            self._owner.finished(self)
        self._release()
        self._tell_closed(None)

    def _tell_closed(self, broken: Broken | None) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.on_closed(broken)

    def _end(self) -> None:
        if self._state in HALF_OPEN:
            self._owner.half_open_ended(self)
        self._state = following(self._state, Event.ABORT)
        self._release()

    def _release(self) -> None:
        self._timer = Timer.NONE
        self.deadline = None
        self._sender.drop()
        self._receive_allowance.release()
        self._reassembly.clear()
