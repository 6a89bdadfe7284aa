"""A connected UDP socket of the operating system, ended when idle.

Made of `add_reader` and not of a datagram transport: those queue without bound when the kernel has no room, and
uvloop's loses empty datagrams.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Protocol

from tunnel.aio.socket_endpoint import Refused, refusal_of
from tunnel.endpoint import Refusal

IDLE = 30.0
"""Seconds without a datagram either way after which an association ends (as Linux: nf_conntrack_udp_timeout)."""
STREAM_IDLE = 120.0
"""The same for a stream: both sides have sent, and not only at once (nf_conntrack_udp_timeout_stream)."""
STREAM_AFTER = 2.0
"""Seconds after which an association that still is in use is a stream."""
MOST_PER_WAKE = 32
"""Datagrams read before other sockets get their turn."""


class DatagramHandler(Protocol):
    """What a UDP socket tells its owner."""

    def on_datagram(self, data: memoryview) -> None:
        """One datagram, whole."""

    def on_refused(self, refusal: Refusal) -> None:
        """ICMP said that the last datagrams did not arrive (nobody listens, no route); the socket stays usable."""

    def on_expired(self) -> None:
        """Nothing came or went for too long, and the socket is closed; the last call."""


class UdpEndpoint:
    """One UDP socket connected to one destination. Made by `dial_udp`."""

    def __init__(self, raw: socket.socket, handler: DatagramHandler, idle: float, stream_idle: float) -> None:
        self._handler = handler
        self._idle = idle
        self._stream_idle = stream_idle
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = raw
        self._begun = self._last = self._loop.time()
        self._heard = False
        self._timer = self._loop.call_later(idle, self._check_idle)
        self._loop.add_reader(raw.fileno(), self._readable)

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram; dropped when the socket is closed or the kernel has no room."""
        if self._socket is None:
            return
        self._last = self._loop.time()
        try:
            self._socket.send(data)
        except BlockingIOError:
            pass  # no room: what a network does with datagrams then
        except OSError as error:
            self._handler.on_refused(refusal_of(error))

    def close(self) -> None:
        """End it; no further call reaches the handler."""
        raw, self._socket = self._socket, None
        if raw is not None:
            self._timer.cancel()
            self._loop.remove_reader(raw.fileno())
            raw.close()

    def _readable(self) -> None:
        for _ in range(MOST_PER_WAKE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:
                self._handler.on_refused(refusal_of(error))
                continue
            self._last = self._loop.time()
            self._heard = True
            self._handler.on_datagram(memoryview(data))

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
    """A UDP socket connected to an address (no names); raises Refused when there is no route. Waits for nothing."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    raw: socket.socket | None = None
    try:
        raw = socket.socket(family, socket.SOCK_DGRAM)
        raw.setblocking(False)
        raw.connect((host, port))
    except OSError as error:
        if raw is not None:
            raw.close()
        raise Refused(refusal_of(error), str(error)) from error
    return UdpEndpoint(raw, handler, idle, stream_idle)
