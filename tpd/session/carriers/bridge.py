"""Joins gRPC to a carrier. grpcio takes no connected socket, so it dials a Unix socket and we pump the bytes.

The socket lies in a private directory, accepts one connection, of this very process (SO_PEERCRED), and is gone then.
Upwards, what gathers while the line is busy leaves as one message: small frames are slow in container runtimes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import struct
import tempfile
from collections import deque

from tpd.session.carriers.websocket import CarrierFailed, WebSocketCarrier

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 256 * 1024
"""Bytes of one message upwards; also what is read ahead from gRPC while the line is busy."""
_DIAL_LIMIT = 10.0
_CREDENTIALS = struct.Struct("3i")


class Bridge:
    """`address` is what gRPC dials. `ended` is done when the bridge is down, with the reason as a text."""

    def __init__(self, carrier: WebSocketCarrier) -> None:
        self._carrier = carrier
        self._directory = tempfile.mkdtemp(prefix="tpctl-")  # mode 0700
        self._path = os.path.join(self._directory, "grpc")
        self._task: asyncio.Task[None] | None = None
        self.address = f"unix:{self._path}"
        self._sent = self._received = self._messages_up = self._messages_down = 0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Listen, accept gRPC's connection and pump until either side ends."""
        reason = "closed"
        try:
            local = await self._accept()
            await self._pump(local)
        except* CarrierFailed as group:
            reason = str(group.exceptions[0])
        except* (OSError, TimeoutError) as group:
            reason = f"the bridge to gRPC failed: {group.exceptions[0]}"
        finally:
            self._forget_socket()
            log.debug(
                "carrier ended (%s): up %d bytes in %d messages, down %d in %d",
                *(reason, self._sent, self._messages_up, self._received, self._messages_down),
            )
            if not self.ended.done():
                self.ended.set_result(reason)
            with contextlib.suppress(Exception):  # closing a broken connection may fail in any way; it is gone anyway
                async with asyncio.timeout(1):
                    await self._carrier.close()

    def listen(self) -> socket.socket:
        """Make the listening socket; after this gRPC may dial."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(self._path)
        listener.listen(1)
        self._listener = listener
        return listener

    async def _accept(self) -> _Local:
        loop = asyncio.get_running_loop()
        with self._listener as listener:
            async with asyncio.timeout(_DIAL_LIMIT):
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    if _peer_pid(connection) == os.getpid():
                        break
                    connection.close()
        self._forget_socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_MESSAGE)
        _, local = await loop.create_unix_connection(_Local, sock=connection)
        return local

    async def _pump(self, local: _Local) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(local), name="carrier-up")
                group.create_task(self._down(local), name="carrier-down")
        finally:
            local.abort()

    async def _up(self, local: _Local) -> None:
        while True:
            message = await local.take()
            if not message:
                raise CarrierFailed("closed")
            self._sent += len(message)
            self._messages_up += 1
            await self._carrier.send(message)

    async def _down(self, local: _Local) -> None:
        while True:
            data = await self._carrier.receive()
            self._received += len(data)
            self._messages_down += 1
            await local.put(data)

    def _forget_socket(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class _Local(asyncio.Protocol):
    """gRPC's connection: a queue of what it sent, and writing with back-pressure."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclasses
        transport.set_write_buffer_limits(high=LARGEST_MESSAGE)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= LARGEST_MESSAGE and self._transport is not None:
            self._transport.pause_reading()
        self._arrived.set()

    async def take(self) -> bytes:
        """Everything that has arrived, behind the channel byte of data; empty at the end."""
        while not self._waiting:
            if self._closed:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        message = b"\0" + b"".join(self._waiting)
        self._waiting.clear()
        if self._size >= LARGEST_MESSAGE and self._transport is not None and not self._closed:
            self._transport.resume_reading()
        self._size = 0
        return message

    async def put(self, data: memoryview) -> None:
        """Write towards gRPC; waits while it does not read."""
        if self._closed or self._transport is None:
            raise CarrierFailed("closed")
        self._transport.write(data)
        await self._room.wait()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._arrived.set()
        self._room.set()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


def _peer_pid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid
