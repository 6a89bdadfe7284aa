"""The table of TCP connections: who gets a segment, what a SYN meets, and what is remembered of the dead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tunnel.endpoint import EndpointHandler, Refusal
from tunnel.stack import icmp, segment, vnet
from tunnel.stack.connection import TcpConnection
from tunnel.stack.ip import IpPacket, reverse
from tunnel.stack.limits import Limits
from tunnel.stack.remembered import Remembered
from tunnel.stack.segment import ACK, FIN, RST, SYN, SegmentBuilder
from tunnel.stack.state import HALF_OPEN, State
from tunnel.stack.timers import TimerQueue
from tunnel.stack.vocabulary import Packet
from tunnel.stack.window import Pool


class TcpTable:
    """All connections of one stack."""

    def __init__(
        self,
        limits: Limits,
        on_tcp: Callable[[TcpConnection], EndpointHandler],
        output: Callable[[Packet], None],
        wake: Callable[[bool], None],
        initial_sequence: Callable[[], int],
    ) -> None:
        self.limits = limits
        self.pool = Pool(limits.shared_buffer)
        self.output = output
        self._on_tcp = on_tcp
        self._wake = wake
        self._initial_sequence = initial_sequence
        self._connections: dict[bytes, TcpConnection] = {}
        self._half_open = 0
        self._ready: deque[TcpConnection] = deque()
        self._timers = TimerQueue[TcpConnection]()
        self._outcomes = Remembered[tuple[int, Refusal]](limits.outcome_kept, limits.max_outcomes)
        self._time_wait = Remembered[Packet](limits.time_wait, limits.max_time_wait)
        self._undated: dict[bytes, tuple[int, Refusal]] = {}
        self.dropped_syns = 0
        """SYNs that met a limit."""

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def half_open(self) -> int:
        """Connections whose handshake is not complete."""
        return self._half_open

    @property
    def ready(self) -> bool:
        """`flush` has something to do."""
        return bool(self._ready)

    def receive(self, view: IpPacket, now: float) -> None:
        """A TCP segment arrived."""
        packet, start, end = view.packet, view.start, view.end
        if end - start < 20:
            return
        source, destination, sequence, acknowledgement, offset, flags, window, _, _ = segment.HEADER.unpack_from(
            packet, start
        )
        data = start + (offset >> 4 << 2)
        if data > end or offset < 0x50:
            return
        if not packet[0] & (vnet.NEEDS_CSUM | vnet.DATA_VALID) and not segment.verify(
            packet, view.addresses, start, end
        ):
            return
        key = view.addresses + packet[start : start + 4]
        connection = self._connections.get(key)
        if connection is not None:
            again = connection.received - 1 == sequence
            if (
                flags & (SYN | ACK | RST) != SYN
                or connection.state not in HALF_OPEN
                or (again and connection.state is State.SYN_RECEIVED)
            ):
                try:
                    connection.segment(packet, data, end, (sequence, acknowledgement, flags, window), now)
                except BaseException:
                    connection.reset()  # its owner failed and may have lost bytes: no stream is better than a wrong one
                    raise
                return
            if again:
                return  # still being dialled
            connection.supersede()
        if flags & (SYN | ACK | RST | FIN) == SYN:
            options = segment.parse_syn_options(packet, start + 20, data)
            self._syn(view, key, (source, destination), (sequence, window, options), now)
        elif not flags & RST:
            self._stray(view, key, (source, destination), (sequence, acknowledgement, flags), end - data)

    def _syn(
        self,
        view: IpPacket,
        key: bytes,
        ports: tuple[int, int],
        syn: tuple[int, int, segment.SynOptions],
        now: float,
    ) -> None:
        outcome = self._undated.get(key) or self._outcomes.get(key)
        if outcome is not None:
            if outcome[0] == syn[0]:
                quote = view.packet[vnet.HEADER_LEN : view.end]
                self.output(_refusal(quote, view.addresses, ports, *outcome))
                return
            self._undated.pop(key, None)
            self._outcomes.forget(key)
        if self._half_open >= self.limits.half_open or len(self._connections) >= self.limits.max_connections:
            self.dropped_syns += 1
            return
        self._time_wait.forget(key)
        quote = view.packet[vnet.HEADER_LEN : view.end]
        connection = TcpConnection(self, key, quote, view.addresses, ports, syn, self._initial_sequence(), now)
        self._connections[key] = connection
        self._half_open += 1
        self.schedule(connection)
        try:
            connection.attach(self._on_tcp(connection))
        except BaseException:
            connection.refuse(Refusal.BUSY)
            raise

    def _stray(
        self,
        view: IpPacket,
        key: bytes,
        ports: tuple[int, int],
        wire: tuple[int, int, int],
        size: int,
    ) -> None:
        """A segment of no connection: TIME-WAIT repeats its ACK, anything else is reset (RFC 9293, 3.10.7.1)."""
        waiting = self._time_wait.get(key)
        if waiting is not None:
            self.output(waiting)
            return
        sequence, acknowledgement, flags = wire
        self.output(_reset(view.addresses, ports, sequence, acknowledgement, flags, size))

    def flush(self, now: float, budget: int) -> None:
        """Let ready connections cut segments in turn until `budget` bytes of payload are out."""
        for key, outcome in self._undated.items():
            self._outcomes.keep(key, outcome, now)
        self._undated.clear()
        ready = self._ready
        while ready and budget > 0:
            budget -= ready.popleft().transmit(now)

    def next_timeout(self) -> float | None:
        """When `on_timeout` has something to do, perhaps earlier."""
        at = self._timers.next()
        for other in (self._outcomes.next_timeout(), self._time_wait.next_timeout()):
            if other is not None and (at is None or other < at):
                at = other
        return at

    def on_timeout(self, now: float) -> None:
        """Do what is due."""
        for item in self._timers.due(now):
            item.expire(now)
            self._timers.schedule(item)
        self._outcomes.expire(now)
        self._time_wait.expire(now)

    def reset_all(self) -> None:
        """The stack ends: tell every peer, and every handler nothing (the owner ends them)."""
        for connection in list(self._connections.values()):
            connection.reset()

    # What connections ask (`connection.Owner`).

    def make_ready(self, connection: TcpConnection, *, urgent: bool) -> None:
        """See `Owner`."""
        self._ready.append(connection)
        self._wake(urgent)

    def schedule(self, connection: TcpConnection) -> None:
        """See `Owner`."""
        self._timers.schedule(connection)

    def half_open_ended(self, connection: TcpConnection) -> None:
        """See `Owner`."""
        self._half_open -= 1

    def refused(self, connection: TcpConnection, refusal: Refusal) -> None:
        """See `Owner`."""
        key, sequence = connection.key, connection.received - 1 & 0xFFFFFFFF
        del self._connections[key]
        self._undated[key] = (sequence, refusal)  # the time to keep it starts with the flush
        self.output(_refusal(connection.quote, connection.addresses, connection.ports, sequence, refusal))

    def finished(self, connection: TcpConnection, *, now: float | None = None, last: Packet = ()) -> None:
        """See `Owner`."""
        del self._connections[connection.key]
        if now is not None:
            self._time_wait.keep(connection.key, last, now)


def _refusal(quote: bytes, addresses: bytes, ports: tuple[int, int], sequence: int, refusal: Refusal) -> Packet:
    """What a SYN is told: a reset where nobody listens, otherwise ICMP from the destination itself."""
    if refusal is Refusal.REFUSED:
        return _reset(addresses, ports, sequence, 0, SYN, 0)
    return icmp.unreachable(quote, addresses, refusal)


def _reset(
    addresses: bytes, ports: tuple[int, int], sequence: int, acknowledgement: int, flags: int, size: int
) -> Packet:
    builder = SegmentBuilder(reverse(addresses), ports[1], ports[0], 65535)
    if flags & ACK:
        return [builder.build(acknowledgement, 0, RST, 0, 0)]
    following = sequence + size + bool(flags & SYN) + bool(flags & FIN)
    return [builder.build(0, following, RST | ACK, 0, 0)]
