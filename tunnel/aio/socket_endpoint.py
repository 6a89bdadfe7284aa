"""A TCP socket of the operating system as an `Endpoint` (tunnel/endpoint.py)."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import cast

from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.window import LEAST, Budget

READ_AHEAD = 256 << 10
"""Bytes handed over and not yet consumed at which reading pauses; it goes on at half of it."""
WRITE_BUFFER = 128 << 10
"""Bytes waiting for the kernel at which `send` takes nothing more."""
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES = 60, 15, 4
"""Seconds, seconds, number: a peer that vanished is found within two minutes."""

_LINGER_0 = struct.pack("ii", 1, 0)


class Refused(Exception):
    """The connection could not be made, for a reason that the far side of the tunnel should see."""

    def __init__(self, refusal: Refusal, detail: str = "") -> None:
        super().__init__(detail or refusal.name.lower())
        self.refusal = refusal
        self.detail = detail


_REFUSALS = {
    errno.ECONNREFUSED: Refusal.REFUSED,
    errno.ECONNRESET: Refusal.REFUSED,
    errno.EHOSTUNREACH: Refusal.UNREACHABLE,
    errno.ENETUNREACH: Refusal.UNREACHABLE,
    errno.EHOSTDOWN: Refusal.UNREACHABLE,
    errno.EADDRNOTAVAIL: Refusal.BUSY,
    errno.EMFILE: Refusal.BUSY,
    errno.ENFILE: Refusal.BUSY,
    errno.ENOBUFS: Refusal.BUSY,
    errno.ENOMEM: Refusal.BUSY,
    errno.EAGAIN: Refusal.BUSY,
    errno.ETIMEDOUT: Refusal.TIMEOUT,
    errno.EACCES: Refusal.PROHIBITED,
    errno.EPERM: Refusal.PROHIBITED,
}


def refusal_of(error: OSError) -> Refusal:
    """What the far side should be told about an error of `connect`."""
    if isinstance(error, TimeoutError):
        return Refusal.TIMEOUT
    return _REFUSALS.get(error.errno or 0, Refusal.UNREACHABLE)


class SocketEndpoint(asyncio.BaseProtocol):
    """One connected TCP socket. Set a handler with `start`; nothing is lost before.

    For servers: `loop.create_server(lambda: SocketEndpoint(on_connected), …)`; `on_connected(endpoint)` calls `start`,
    at once or later.
    """

    _high_water = WRITE_BUFFER

    def __init__(self, on_connected: Callable[[SocketEndpoint], None] | None = None) -> None:
        self._on_connected = on_connected
        self._handler: EndpointHandler | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[memoryview] = []
        """What came before the handler: uvloop ignores `pause_reading` in `connection_made`, so one read may come."""
        self._unconsumed = 0
        self._reading = True
        self._writable = True
        self._turned_away = False
        self._eof_sent = self._eof_received = self._closed = self._reset = False
        self._broken: Broken | None = None

    @property
    def peername(self) -> tuple[str, int] | None:
        """The other side's address and port; None once closed."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (name[0], name[1]) if name else None

    @property
    def sockname(self) -> tuple[str, int] | None:
        """Our side's address and port; None once closed."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return (name[0], name[1]) if name else None

    def start(self, handler: EndpointHandler) -> None:
        """Deliver events to `handler` from now on, those that came before first."""
        self._handler = handler
        early, self._early = self._early, []
        for data in early:
            if self._reset:
                return
            handler.on_data(data)
        if self._eof_received and not self._reset:
            handler.on_eof()
        if self._closed and not self._reset:
            handler.on_closed(self._broken)
            return
        self._resume()

    # Endpoint.

    def send(self, data: memoryview) -> int:
        """Take all of `data`, or nothing while too much waits for the kernel."""
        transport = self._transport
        if transport is None or self._closed or self._eof_sent or not self._writable:
            self._turned_away = True
            return 0
        transport.write(data)
        return len(data)

    def send_eof(self) -> None:
        """Shut our direction down after what was taken."""
        if self._eof_sent or self._closed or self._transport is None:
            return
        self._eof_sent = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._close_if_done()

    def reset(self) -> None:
        """Drop the connection so that the peer sees a reset; no further call reaches the handler."""
        if self._reset:
            return
        self._reset = True
        self._early.clear()
        self._release()
        if self._transport is not None and not self._closed:
            abort(self._transport)

    def consumed(self, count: int) -> None:
        """`count` bytes have left for good."""
        self._unconsumed -= count
        self._count()
        self._resume()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's
        self._transport = transport
        transport.set_write_buffer_limits(high=self._high_water)
        tune(transport)
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the kernel."""
        view = memoryview(data)
        self._unconsumed += len(data)
        if self._handler is None:
            self._early.append(view)
        elif not self._reset:
            self._handler.on_data(view)
        self._count()
        full = self._unconsumed >= self._read_ahead() or self._handler is None
        if full and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer shut its direction down; ours stays open."""
        self._eof_received = True
        if self._handler is not None and not self._reset:
            self._handler.on_eof()
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        """Too much waits for the kernel."""
        self._writable = False
        self._count()

    def resume_writing(self) -> None:
        """The kernel took enough."""
        self._writable = True
        self._count()
        if self._turned_away and self._handler is not None and not self._reset:
            self._turned_away = False
            self._handler.on_writable()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        self._closed = True
        self._transport = None
        in_order = error is None and self._eof_sent and self._eof_received
        timed_out = isinstance(error, OSError) and error.errno == errno.ETIMEDOUT
        self._broken = None if in_order else Broken.TIMED_OUT if timed_out else Broken.RESET
        if in_order:
            self._count()
        else:
            self._release()
        if self._handler is not None and not self._reset:
            self._handler.on_closed(self._broken)

    def _resume(self) -> None:
        if (
            not self._reading
            and (not self._unconsumed or self._unconsumed * 2 <= self._read_ahead())
            and self._handler is not None
            and self._transport is not None
            and not self._eof_received
            and not self._transport.is_closing()
        ):
            self._reading = True
            self._transport.resume_reading()

    def _read_ahead(self) -> int:
        return READ_AHEAD

    def _count(self) -> None:
        """What the socket holds has changed."""

    def _release(self) -> None:
        """Nobody will consume what the socket holds."""

    def _close_if_done(self) -> None:
        if self._eof_sent and self._eof_received and self._transport is not None:
            self._transport.close()


class BoundedSocketEndpoint(SocketEndpoint, asyncio.BufferedProtocol):
    """A SocketEndpoint that holds no more than its share of `budget`, and reads no more than that at once."""

    _scratch = bytearray(READ_AHEAD)
    """Shared by all: a read is copied out of it before the next begins."""
    _high_water = LEAST

    def __init__(self, on_connected: Callable[[SocketEndpoint], None] | None, budget: Budget) -> None:
        super().__init__(on_connected)
        self._budget: Budget | None = budget
        self._counted = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes."""
        return memoryview(self._scratch)[: max(self._read_ahead() - self._unconsumed, LEAST)]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the kernel."""
        self.data_received(bytes(memoryview(self._scratch)[:nbytes]))

    def send(self, data: memoryview) -> int:
        """Give the kernel all it takes of `data`, and keep no more than a share of the rest."""
        taken = 0
        while taken < len(data) and self._budget is not None:
            count = super().send(data[taken : taken + self._budget.buffer_share(WRITE_BUFFER)])
            if not count:
                break
            taken += count
        return taken

    def _read_ahead(self) -> int:
        return READ_AHEAD if self._budget is None else self._budget.buffer_share(READ_AHEAD)

    def _count(self) -> None:
        if self._budget is not None:
            holds = self._unconsumed
            if not self._writable and self._transport is not None:
                holds += self._transport.get_write_buffer_size()
            self._budget.buffer(holds - self._counted)
            self._counted = holds

    def _release(self) -> None:
        if self._budget is not None:
            self._budget.buffer(-self._counted)
            self._budget = None


def tune(transport: asyncio.Transport) -> None:
    """Options every TCP socket of the tunnel has."""
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def abort(transport: asyncio.Transport) -> None:
    """Close with a reset: nothing that waits is sent."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    transport.abort()


async def dial_tcp(host: str, port: int, timeout: float, budget: Budget | None = None) -> SocketEndpoint:
    """Connect to an address (no names) within `timeout` seconds; raises Refused. Then `start` the endpoint.

    With a `budget` the endpoint holds no more than its share of it.
    """
    loop = asyncio.get_running_loop()

    def endpoint_of() -> SocketEndpoint:
        return SocketEndpoint() if budget is None else BoundedSocketEndpoint(None, budget)

    try:
        async with asyncio.timeout(timeout):
            _, endpoint = await loop.create_connection(endpoint_of, host, port)
    except OSError as error:
        raise Refused(refusal_of(error), str(error)) from error
    return endpoint
