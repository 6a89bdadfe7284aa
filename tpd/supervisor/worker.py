"""One session worker: started as its user, spoken to over its control socket, ended for good."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from tpd.supervisor import users
from tunnel import control
from tunnel.proto import daemon_pb2 as pb

log = logging.getLogger("tpd.worker")

MODULE = "tpd.session"
EXIT_GRACE = 3.0
"""Seconds between closing the control socket and SIGKILL."""
_MAX_EVENTS = 1000
"""Per request, waiting for a caller that does not read; more are dropped."""
_KEPT = 4096
"""Bytes of what the worker printed last: the reason when it dies."""


class WorkerGone(Exception):
    """The worker ended, or never spoke. The text is one sentence."""


class Worker:
    """A running worker process. Create it with `start`; `run` must be running while it is used."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        on_host: Callable[[pb.HostConfig], Awaitable[None]],
    ) -> None:
        self._process = process
        self._sock = sock
        self._on_host = on_host
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Queue[pb.Event | None]] = {}
        self._ids = itertools.count(1)
        self._printed = b""
        self._early: list[pb.ToWorker] = []
        self.gone = False
        """Its control socket has closed: it serves nothing any more."""

    @property
    def pid(self) -> int:
        """Of the process, running or not."""
        return self._process.pid

    @classmethod
    async def start(
        cls,
        *,
        user: users.User,
        environment: Mapping[str, str],
        start: pb.WorkerStart,
        tun: int,
        on_host: Callable[[pb.HostConfig], Awaitable[None]],
        module: str = MODULE,
    ) -> Worker:
        """Start the process as the user and hand it the device. The caller keeps its own descriptor of the device.

        The user's environment reaches the worker only: `python -I` ignores PYTHON* and the current folder, and the
        dynamic loader reads LD_* after the process has become the user's. Raises WorkerGone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            identity = {}
            if os.geteuid() == 0:
                identity = {"user": user.uid, "group": user.gid, "extra_groups": users.supplementary_groups(user)}
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                module,
                "--control-fd",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                cwd="/",  # not the user's folder: root enters it before the process becomes the user's
                start_new_session=True,
                umask=0o077,
                **identity,  # type: ignore[arg-type]  # one dict for three keywords of different types
            )
        except OSError as error:
            ours.close()
            raise WorkerGone(f"cannot start a session worker: {error.strerror}") from error
        finally:
            theirs.close()
        worker = cls(process, ours, on_host)
        try:
            ours.settimeout(5)
            control.send_with_fd(ours, pb.ToWorker(start=start), tun)  # fits the socket's buffer: it cannot block
        except OSError as error:
            await worker.end()
            raise WorkerGone(f"the session worker ended at once: {worker.last_words()}") from error
        return worker

    async def run(self) -> None:
        """Serve the worker's messages until its control socket closes; every open request then ends."""
        self._sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._sock, limit=control.MAX_MESSAGE)
        self._writer = writer
        for early in self._early:
            writer.write(control.encode(early))
        self._early.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                printed = tasks.create_task(self._collect(), name=f"worker {self.pid} output")
                try:
                    while (message := await control.read(reader, pb.FromWorker)) is not None:
                        match message.WhichOneof("message"):
                            case "event":
                                queue = self._waiting.get(message.event.id)
                                if queue is not None and queue.qsize() < _MAX_EVENTS:
                                    queue.put_nowait(message.event.event)
                            case "host":
                                await self._on_host(message.host)
                            case _:
                                log.warning("worker %d sent a message that tpd does not know", self.pid)
                except (control.BadMessage, OSError) as error:
                    log.warning("worker %d: %s", self.pid, error)
                finally:
                    self.gone = True
                    writer.close()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await asyncio.shield(printed)
                    printed.cancel()
        finally:
            for queue in self._waiting.values():
                queue.put_nowait(None)

    async def _collect(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(65536):
            self._printed = (self._printed + data)[-_KEPT:]

    def last_words(self) -> str:
        """The last line that the worker printed, made harmless for a terminal."""
        lines = [line for line in self._printed.decode(errors="replace").splitlines() if line.strip()]
        text = lines[-1].strip() if lines else "it said nothing"
        return "".join(c if c.isprintable() else "?" for c in text)[:300]

    def printed(self) -> str:
        """All that is kept of what the worker printed, for the log."""
        text = self._printed.decode(errors="replace")
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)

    def send(self, message: pb.ToWorker) -> None:
        """Queue a message; a worker that is gone does not get it."""
        if self._writer is None:
            self._early.append(message)
        elif not self._writer.is_closing():
            self._writer.write(control.encode(message))

    async def ask(self, request: pb.Request, on_progress: Callable[[pb.Event], Awaitable[None]]) -> pb.Event:
        """Forward a request and return its final event; `on_progress` gets those before it.

        When the caller is cancelled, the worker is told. Raises WorkerGone when the worker ends first.
        """
        if self._writer is not None and self._writer.transport.get_write_buffer_size() > control.MAX_MESSAGE:
            raise WorkerGone("the session worker does not read its messages; run: tpctl quit")
        number = next(self._ids)
        queue: asyncio.Queue[pb.Event | None] = asyncio.Queue()
        self._waiting[number] = queue
        self.send(pb.ToWorker(request=pb.Forwarded(id=number, request=request)))
        try:
            while True:
                event = await queue.get()
                if event is None:
                    raise WorkerGone(f"the session worker ended: {self.last_words()}")
                if event.WhichOneof("event") != "progress":
                    return event
                await on_progress(event)
        except asyncio.CancelledError:
            self.send(pb.ToWorker(cancel=number))
            raise
        finally:
            del self._waiting[number]

    async def end(self) -> None:
        """Close the control socket, give the worker a moment, then kill it and its children's session. Repeatable."""
        if self._writer is not None:
            self._writer.close()
        self._sock.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_GRACE):
                await self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it is the leader of its own session and group
        await self._process.wait()
