"""The daemon's Unix socket: one request a connection, events back, the last one final."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from tpd.supervisor import users
from tpd.supervisor.supervisor import Handler
from tunnel import control
from tunnel.proto import daemon_pb2 as pb

log = logging.getLogger("tpd.server")

REQUEST_TIMEOUT = 10.0
"""Seconds for a caller to send its request."""
WRITE_TIMEOUT = 10.0
"""Seconds for a caller to read an event, and at the end for it to read what is left."""
MAX_CALLERS = 64
"""Open connections per user."""
MAX_READING = 4
"""Requests of one user that are read at once: what half a message can hold of our memory is bounded by it."""
_UNREAD = 64 * 1024
"""Bytes that wait in our memory for a request that is not read yet (asyncio takes twice that)."""


class Server:
    """Accepts callers and runs `handle` for each. Anybody may open the socket; `users.allowed` decides who is served,
    so that who is not gets a sentence instead of a bare "permission denied"."""

    def __init__(self, path: Path, handle: Handler, *, starter: int | None) -> None:
        self._path = path
        self._handle = handle
        self._starter = starter
        self._server: asyncio.Server | None = None
        self._bound = False
        self._callers: dict[int, int] = {}
        self._reading: dict[int, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        sock = inherited() or self._bind()
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_UNREAD)

    def _bind(self) -> socket.socket:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with suppress(FileNotFoundError):
            self._path.unlink()  # a dead socket: the lock on the state folder says that no other tpd lives
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.bind(str(self._path))
            self._bound = True
            os.chmod(self._path, 0o666)
        except BaseException:
            sock.close()
            raise
        return sock

    async def close(self) -> None:
        """Accept nobody any more."""
        if self._server is not None:
            self._server.close()
            if self._bound:  # systemd's socket stays, for the next start
                with suppress(OSError):
                    self._path.unlink()

    async def drain(self, deadline: float) -> None:
        """Let callers that are being served read their answers, for so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = -1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            user = users.peer(writer.get_extra_info("socket"))
            uid = user.uid
            self._callers[uid] = self._callers.get(uid, 0) + 1
            await self._answer(user, reader, writer)
        except (control.BadMessage, OSError, TimeoutError) as error:
            log.info("a caller of uid %d: %s", uid, error or type(error).__name__)
        finally:
            await _close(writer)
            self._tasks.discard(task)
            if uid in self._callers:
                self._callers[uid] -= 1
                if not self._callers[uid]:
                    del self._callers[uid]
                    self._reading.pop(uid, None)

    async def _answer(self, user: users.User, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not users.allowed(user, group=users.group_id(), starter=self._starter):
            text = (
                f"{users.name(user.uid)} may not use tpd; ask to be added to the group {users.GROUP}, "
                "or start tpd yourself through sudo"
            )
            await _send(writer, pb.Event(error=pb.Error(text=text, category=pb.USER)))
            return
        if self._callers[user.uid] > MAX_CALLERS:
            await _send(writer, pb.Event(error=pb.Error(text="too many commands at once; try again", retryable=True)))
            return
        reading = self._reading.setdefault(user.uid, asyncio.Semaphore(MAX_READING))
        async with asyncio.timeout(REQUEST_TIMEOUT), reading:
            request = await control.read(reader, pb.Request)
        if request is None:
            return

        async def on_progress(event: pb.Event) -> None:
            await _send(writer, event)

        work = asyncio.create_task(self._handle(user, request, on_progress), name=f"request of uid {user.uid}")
        gone = asyncio.create_task(reader.read(1), name=f"caller of uid {user.uid}")
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await _send(writer, work.result())
            else:
                work.cancel()  # the caller went away, or sent a second request, which is an error too
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, event: pb.Event) -> None:
    writer.write(control.encode(event))
    async with asyncio.timeout(WRITE_TIMEOUT):
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let the caller read what is on its way, but not for ever: until then it counts, and holds our memory."""
    writer.close()
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await writer.wait_closed()
    except OSError:  # TimeoutError is one
        pass
    finally:
        writer.transport.abort()


def inherited() -> socket.socket | None:
    """The listening socket that systemd passes on (sd_listen_fds(3)), if it does."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(3, False)
    return socket.socket(fileno=3)


def notify_ready() -> None:
    """Tell systemd that commands are served now (sd_notify(3)), when it wants to know."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send(b"READY=1")
