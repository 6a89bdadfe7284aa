"""A connected UDP socket of the operating system, ended when idle."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from tunnel.aio.socket_endpoint import Refused, refusal_of
from tunnel.endpoint import Refusal

IDLE = 30.0
"""Seconds without a datagram either way after which an association ends (as Linux: nf_conntrack_udp_timeout)."""
STREAM_IDLE = 120.0
"""The same for a stream: both sides have sent, and not only at once (nf_conntrack_udp_timeout_stream)."""
STREAM_AFTER = 2.0
"""Seconds after which an association that still is in use is a stream."""


class DatagramHandler(Protocol):
    """What a UDP socket tells its owner."""

    def on_datagram(self, data: memoryview) -> None:
        """One datagram, whole."""

    def on_refused(self, refusal: Refusal) -> None:
        """The destination answered with ICMP that nobody listens; the socket stays usable."""

    def on_expired(self) -> None:
        """Nothing came or went for too long, and the socket is closed; the last call."""


class UdpEndpoint(asyncio.DatagramProtocol):
    """One UDP socket connected to one destination. Made by `dial_udp`."""

    def __init__(self, handler: DatagramHandler, idle: float, stream_idle: float) -> None:
        self._handler = handler
        self._idle = idle
        self._stream_idle = stream_idle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._begun = self._last = self._loop.time()
        self._heard = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram; dropped when the socket is closed or the kernel has no room."""
        self._last = self._loop.time()
        if self._transport is not None:
            self._transport.sendto(data)

    def close(self) -> None:
        """End it; no further call reaches the handler."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket exists."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # uvloop's do not inherit from asyncio's
        self._timer = self._loop.call_later(self._idle, self._check_idle)

    def datagram_received(self, data: bytes, address: object) -> None:
        """A datagram from the destination."""
        if not self._closed:
            self._last = self._loop.time()
            self._heard = True
            self._handler.on_datagram(memoryview(data))

    def error_received(self, error: Exception) -> None:
        """ICMP came back."""
        if not self._closed and isinstance(error, OSError):
            self._handler.on_refused(refusal_of(error))

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        self._transport = None
        if not self._closed:
            self.close()
            self._handler.on_expired()

    def _check_idle(self) -> None:
        stream = self._heard and self._last - self._begun > STREAM_AFTER
        left = self._last + (self._stream_idle if stream else self._idle) - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self.close()
            self._handler.on_expired()


async def dial_udp(
    host: str, port: int, handler: DatagramHandler, *, idle: float = IDLE, stream_idle: float = STREAM_IDLE
) -> UdpEndpoint:
    """A UDP socket connected to an address (no names); raises Refused when there is no route."""
    loop = asyncio.get_running_loop()
    try:
        _, endpoint = await loop.create_datagram_endpoint(
            lambda: UdpEndpoint(handler, idle, stream_idle), remote_addr=(host, port)
        )
    except OSError as error:
        raise Refused(refusal_of(error), str(error)) from error
    return endpoint
