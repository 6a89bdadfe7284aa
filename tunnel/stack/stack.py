"""The stack: packets of one local peer in, packets out, and the owner told what the peer wants.

Nothing here reads a clock or touches a device: `receive`, `flush` and `on_timeout` take `now` (seconds, monotonic),
and what is to be sent waits until `flush` hands it out.
"""

from __future__ import annotations

from collections.abc import Callable

from tunnel.stack import icmp, ip
from tunnel.stack.fragments import Fragments
from tunnel.stack.ip import IpPacket
from tunnel.stack.limits import Limits
from tunnel.stack.tcp import TcpTable
from tunnel.stack.udp import UdpTable
from tunnel.stack.vocabulary import Packet, StackHandler


class Stack:
    """A TCP/IP terminator for one peer."""

    def __init__(
        self,
        handler: StackHandler,
        *,
        random32: Callable[[], int],
        limits: Limits | None = None,
    ) -> None:
        """`random32`: an unpredictable number below 2**32 for initial sequence numbers (RFC 9293, 3.4.1)."""
        self.limits = limits or Limits()
        self._handler = handler
        self._out: list[Packet] = []
        self._busy = False
        self._wake: Callable[[bool], None] | None = None
        self._tcp = TcpTable(self.limits, handler.on_tcp, self._output, self._woken, random32)
        self._udp = UdpTable(self.limits, handler.on_udp, self._output)
        self._fragments = Fragments(
            self.limits.fragment_bytes, self.limits.fragment_pieces, self.limits.fragment_timeout
        )
        self.ignored = 0
        """Packets that were not sound IP, or not to one host."""

    def on_wake(self, wake: Callable[[bool], None] | None) -> None:
        """Set who is told that `flush` has something to do, when that did not come from `receive` or `on_timeout`.

        The argument: at once (nothing else will trigger a flush, somebody waits), or soon will do.
        """
        self._wake = wake

    @property
    def tcp_connections(self) -> int:
        """Connections now, half-open ones included."""
        return len(self._tcp)

    @property
    def half_open(self) -> int:
        """TCP connections whose handshake is not complete."""
        return self._tcp.half_open

    @property
    def dropped_syns(self) -> int:
        """SYNs that met a limit."""
        return self._tcp.dropped_syns

    @property
    def buffers_free(self) -> int:
        """Bytes of the shared pool that no connection has."""
        return self._tcp.pool.free

    @property
    def udp_associations(self) -> int:
        """Associations now."""
        return len(self._udp)

    def receive(self, packet: bytes, now: float) -> None:
        """One read of the device: virtio header and IP packet. Garbage is dropped, never raised."""
        view = ip.parse(packet)
        if view is None:
            self.ignored += 1
            return
        self._busy = True
        try:
            if view.protocol == ip.TCP and not view.more and not view.fragment:
                self._tcp.receive(view, now)
            else:
                self._other(view, now)
        finally:
            self._busy = False

    def _other(self, view: IpPacket, now: float) -> None:
        if view.is_fragment:
            whole = self._fragments.add(view, now)
            if whole is None:
                return
            view = whole
        if view.protocol == ip.UDP:
            self._udp.receive(view, now)
        elif view.protocol == ip.TCP:
            self._tcp.receive(view, now)
        elif view.protocol == (ip.ICMP if view.version == 4 else ip.ICMPV6):
            request = icmp.parse_echo(view, self._output)
            if request is not None:
                self._handler.on_echo(request)
                return
            closed = icmp.parse_port_unreachable(view)
            if closed is not None and closed[1] == ip.UDP:
                self._udp.unreachable(closed[0], closed[2], closed[3])

    def flush(self, now: float) -> list[Packet]:
        """What is to be written to the device now, in order. Never calls a handler. More may remain: see `ready`."""
        self._busy = True
        try:
            self._tcp.flush(now, self.limits.flush_bytes)
        finally:
            self._busy = False
        out = self._out
        if out:
            self._out = []
        return out

    @property
    def ready(self) -> bool:
        """`flush` would return something."""
        return bool(self._out) or self._tcp.ready

    def next_timeout(self) -> float | None:
        """When to call `on_timeout`. Calling early does no harm."""
        at = self._tcp.next_timeout()
        for other in (self._udp.next_timeout(), self._fragments.next_timeout()):
            if other is not None and (at is None or other < at):
                at = other
        return at

    def on_timeout(self, now: float) -> None:
        """Do what is due; then `flush`."""
        self._busy = True
        try:
            self._tcp.on_timeout(now)
            self._udp.on_timeout(now)
            self._fragments.expire(now)
        finally:
            self._busy = False

    def reset_all(self) -> None:
        """The tunnel ends: reset every connection (no handler is called), then `flush` a last time."""
        self._busy = True
        try:
            self._tcp.reset_all()
        finally:
            self._busy = False

    def _output(self, packet: Packet) -> None:
        self._out.append(packet)
        if not self._busy:
            self._woken(False)

    def _woken(self, urgent: bool) -> None:
        if not self._busy and self._wake is not None:
            self._wake(urgent)
