"""Joins gRPC to a carrier. grpcio takes no connected socket, so it dials a Unix socket and we pump the bytes.

The socket lies in a private directory, accepts one connection, of this very process (SO_PEERCRED), and is gone then.
The pump is callbacks only: a task per direction would cost every small message two more turns of the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import struct
import tempfile
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from tpd.session.carriers.port_forward import LARGEST_MESSAGE, LARGEST_PREFIX, CarrierFailed, PortForward

log = logging.getLogger(__name__)

_DIAL_LIMIT = 10.0
_MOST_PARTS = 512
"""Buffers in one system call; the kernel takes 1024."""
_LONGEST_FOLDER = 80
"""Bytes; a socket's whole name has 107 (unix(7); fewer on other systems), and the private folder's is in it."""
_CREDENTIALS = struct.Struct("3i")


def private_folder(environment: Mapping[str, str]) -> str:
    """A new folder of mode 0700. Not below $TMPDIR, which may be too long for a socket's name, or gone: the worker
    lives longer than the shell that set it. Raises OSError."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and len(os.fsencode(runtime)) <= _LONGEST_FOLDER:
        with suppress(OSError):
            return tempfile.mkdtemp(prefix="tpctl-", dir=runtime)
    return tempfile.mkdtemp(prefix="tpctl-", dir="/tmp")  # mkdtemp's own is private


class Bridge:
    """`address` is what gRPC dials. `ended` is done when the bridge is down, with the reason as a text."""

    def __init__(self, carrier: PortForward) -> None:
        self._carrier = carrier
        self._directory = private_folder(os.environ)
        self._path = os.path.join(self._directory, "grpc")
        self.address = f"unix:{self._path}"
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def listen(self) -> None:
        """Make the listening socket; after this gRPC may dial. Raises OSError, and then nothing is left of it."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(self._path)
            self._listener.listen(1)
        except OSError:
            self._listener.close()
            self._forget_socket()
            raise

    async def run(self) -> None:
        """Accept gRPC's connection and pump until either side ends."""
        reason = "closed"
        pump: _Pump | None = None
        try:
            pump = _Pump(await self._accept(), self._carrier)
            reason = await pump.ended
        except CarrierFailed as failed:
            reason = str(failed)
        except OSError as error:  # TimeoutError is one
            reason = f"the bridge to gRPC failed: {error or 'gRPC did not dial it'}"
        finally:
            if pump is not None:
                pump.close()
                log.debug(
                    "carrier ended (%s): up %d bytes in %d messages, down %d in %d",
                    *(reason, pump.sent, pump.messages_up, pump.received, pump.messages_down),
                )
            self.close(reason)

    def close(self, reason: str = "closed") -> None:
        """Let go of everything, also when `run` never ran. Idempotent."""
        self._listener.close()
        self._forget_socket()
        self._carrier.abort(reason)
        if not self.ended.done():
            self.ended.set_result(reason)

    async def _accept(self) -> socket.socket:
        loop, dialled = asyncio.get_running_loop(), asyncio.Event()
        with self._listener as listener:
            # Not sock_accept: cancelled at the wrong moment, it loses the connection that it has just made.
            loop.add_reader(listener, dialled.set)
            try:
                async with asyncio.timeout(_DIAL_LIMIT):
                    connection = None
                    while connection is None:
                        await dialled.wait()
                        dialled.clear()
                        connection = _own_connection(listener)
            finally:
                loop.remove_reader(listener)
        self._forget_socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST_MESSAGE)
        return connection

    def _forget_socket(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class _Pump:
    """gRPC's connection on one side, the carrier on the other; the slower one stops the faster."""

    def __init__(self, local: socket.socket, carrier: PortForward) -> None:
        self._loop = asyncio.get_running_loop()
        self._local = local
        self._carrier = carrier
        self._buffer = bytearray(LARGEST_PREFIX + LARGEST_MESSAGE)
        self._view = memoryview(self._buffer)
        self._waiting: deque[memoryview] = deque()
        """What gRPC's socket did not take yet."""
        self.sent = self.received = self.messages_up = self.messages_down = 0
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(local, self._readable)
        carrier.start(self)

    def close(self) -> None:
        """Close gRPC's connection. Idempotent."""
        if self._local.fileno() >= 0:
            self._loop.remove_reader(self._local)
            self._loop.remove_writer(self._local)
            self._local.close()

    # Upwards.

    def _readable(self) -> None:
        try:
            size = self._local.recv_into(self._view[LARGEST_PREFIX:])
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"gRPC's connection broke: {error}")
            return
        if not size:
            self._end("closed")
            return
        self.sent += size
        self.messages_up += 1
        prefix = self._carrier.prefix(size)
        start = LARGEST_PREFIX - len(prefix)
        self._view[start:LARGEST_PREFIX] = prefix
        self._carrier.send(bytes(self._view[start : LARGEST_PREFIX + size]))

    def on_pause(self) -> None:
        """The line is full."""
        if self._local.fileno() >= 0:
            self._loop.remove_reader(self._local)

    def on_resume(self) -> None:
        """The line takes more."""
        if self._local.fileno() >= 0:
            self._loop.add_reader(self._local, self._readable)

    # Downwards.

    def on_data(self, parts: list[memoryview]) -> None:
        """Bytes for gRPC."""
        waiting = self._waiting
        self.received += sum(map(len, parts))
        self.messages_down += 1
        if waiting:
            waiting.extend(parts)
            return
        waiting.extend(parts)
        self._write()
        if waiting and self._local.fileno() >= 0:
            self._carrier.pause()
            self._loop.add_writer(self._local, self._writable)

    def _writable(self) -> None:
        self._write()
        if not self._waiting and self._local.fileno() >= 0:
            self._loop.remove_writer(self._local)
            self._carrier.resume()

    def _write(self) -> None:
        waiting = self._waiting
        while waiting and self._local.fileno() >= 0:
            parts = list(waiting) if len(waiting) <= _MOST_PARTS else [waiting[i] for i in range(_MOST_PARTS)]
            try:
                size = self._local.sendmsg(parts)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(f"gRPC's connection broke: {error}")
                return
            for part in parts:
                if size < len(part):
                    waiting[0] = part[size:]
                    return
                size -= len(part)
                waiting.popleft()

    def on_closed(self, reason: str) -> None:
        """The carrier has ended."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.close()
        if not self.ended.done():
            self.ended.set_result(reason)


def _own_connection(listener: socket.socket) -> socket.socket | None:
    """The next connection, if there is one and this very process has made it."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    if _peer_pid(connection) != os.getpid():
        connection.close()
        return None
    connection.setblocking(False)
    return connection


def _peer_pid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid
