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

from tpd.supervisor import keyring, users
from tunnel import control
from tunnel.proto import daemon_pb2 as pb

log = logging.getLogger("tpd.worker")

MODULE = "tpd.session"
EXIT_GRACE = 3.0
"""Seconds between closing the control socket and SIGKILL."""
KILL_GRACE = 2.0
"""Seconds for the kernel to end what got SIGKILL; a process that waits for a dead file server takes longer."""
_MAX_PROGRESS = 64 * 1024
"""Bytes of progress per request that wait for a caller that does not read; more is dropped."""
_WISHES = 20.0
"""Wishes for the host per second, on average; each costs tpd dozens of system calls."""
_WISHES_AT_ONCE = 20
_WISHES_WAITING = 100
"""Of one worker; one that has more sends them without waiting for the answers."""
_KEPT = 4096
"""Bytes of what the worker printed last: the reason when it dies."""


class WorkerGone(Exception):
    """The worker ended, or never spoke. The text is one sentence."""


class Pace:
    """When the next of many things may happen, so that they stay below a rate after a burst. Pure."""

    def __init__(self, rate: float, burst: int) -> None:
        self._each = 1 / rate
        self._burst = burst
        self._due = 0.0

    def delay(self, now: float) -> float:
        """Seconds to wait before one more."""
        self._due = max(self._due, now) + self._each
        return max(0.0, self._due - self._burst * self._each - now)


class _Events:
    """One request's events on their way to its caller."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[pb.Event | None] = asyncio.Queue()
        self._progress = 0
        self._final = False

    def put(self, event: pb.Event) -> None:
        """Queue it; what comes after the final event, and progress that nobody reads, is dropped."""
        if self._final:
            return
        self._final = event.WhichOneof("event") != "progress"
        if not self._final:
            if self._progress + event.ByteSize() > _MAX_PROGRESS:
                return
            self._progress += event.ByteSize()
        self._queue.put_nowait(event)

    def end(self) -> None:
        """No more will come."""
        self._queue.put_nowait(None)

    async def get(self) -> pb.Event | None:
        """The next one; None: the worker is gone."""
        event = await self._queue.get()
        if event is not None and event.WhichOneof("event") == "progress":
            self._progress -= event.ByteSize()
        return event


class Worker:
    """A running worker process. Create it with `start`; `run` must be running while it is used."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        output: int,
        on_host: Callable[[pb.HostConfig], Awaitable[None]],
    ) -> None:
        self._process = process
        self._sock = sock
        self._output = output
        self._on_host = on_host
        self._reader = asyncio.StreamReader()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, _Events] = {}
        self._ids = itertools.count(1)
        self._printed = b""
        self._silent = asyncio.Event()
        self._breach = ""
        self.gone = False
        """Its control socket has closed: it serves nothing any more."""
        os.set_blocking(output, False)
        asyncio.get_running_loop().add_reader(output, self._read_output)

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
        # A pipe of our own: asyncio's would make the wait for the process a wait for whatever inherited it.
        printed, prints = os.pipe()
        try:
            identity = {}
            if os.geteuid() == 0:
                identity = {"user": user.uid, "group": user.gid, "extra_groups": users.supplementary_groups(user)}
            keyring.join_new_one()  # in this thread, which is the one that forks, with nothing in between
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-m",
                module,
                "--control-fd",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=prints,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                cwd="/",  # not the user's folder: root enters it before the process becomes the user's
                start_new_session=True,
                umask=0o077,
                **identity,  # type: ignore[arg-type]  # one dict for three keywords of different types
            )
        except BaseException as error:
            ours.close()
            os.close(printed)
            if isinstance(error, OSError):
                raise WorkerGone(f"cannot start a session worker: {error.strerror}") from error
            raise
        finally:
            theirs.close()
            os.close(prints)
        worker = cls(process, ours, printed, on_host)
        try:
            ours.settimeout(5)
            control.send_with_fd(ours, pb.ToWorker(start=start), tun)  # fits the socket's buffer: it cannot block
            ours.setblocking(False)
            worker._reader, worker._writer = await asyncio.open_connection(sock=ours, limit=control.MAX_MESSAGE)
        except BaseException as error:
            await worker.end()
            if isinstance(error, OSError):
                raise WorkerGone(f"the session worker ended at once: {worker.last_words()}") from error
            raise
        return worker

    async def run(self) -> None:
        """Serve the worker's messages until its control socket closes; every open request then ends."""
        assert self._writer is not None
        wishes: asyncio.Queue[pb.HostConfig | None] = asyncio.Queue(_WISHES_WAITING)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fulfil(wishes), name=f"wishes of worker {self.pid}")
            try:
                await self._read(wishes)
            finally:
                self.gone = True
                self._writer.transport.abort()
                while not wishes.empty():
                    wishes.get_nowait()
                wishes.put_nowait(None)
                try:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self._silent.wait()  # its last words may still be on their way
                finally:
                    for events in self._waiting.values():
                        events.end()

    async def _read(self, wishes: asyncio.Queue[pb.HostConfig | None]) -> None:
        try:
            while not self._breach and (message := await control.read(self._reader, pb.FromWorker)) is not None:
                match message.WhichOneof("message"):
                    case "event":
                        if (events := self._waiting.get(message.event.id)) is not None:
                            events.put(message.event.event)
                    case "host":
                        if wishes.full():
                            self._give_up("it asked for too much at once")
                        else:
                            wishes.put_nowait(message.host)
                    case _:
                        log.warning("worker %d sent a message that tpd does not know", self.pid)
        except (control.BadMessage, OSError) as error:
            log.warning("worker %d: %s", self.pid, error)

    async def _fulfil(self, wishes: asyncio.Queue[pb.HostConfig | None]) -> None:
        pace = Pace(_WISHES, _WISHES_AT_ONCE)
        while (wish := await wishes.get()) is not None:
            await asyncio.sleep(pace.delay(asyncio.get_running_loop().time()))
            if not self.gone:
                await self._on_host(wish)

    def _give_up(self, reason: str) -> None:
        assert self._writer is not None
        log.error("worker %d is ended: %s", self.pid, reason)
        self._breach = reason
        self._writer.transport.abort()

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        self._printed = (self._printed + data)[-_KEPT:]
        if not data:
            self._close_output()

    def _close_output(self) -> None:
        if not self._silent.is_set():
            self._silent.set()
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)

    def last_words(self) -> str:
        """The last line that the worker printed, made harmless for a terminal. For its user alone: not for the log."""
        if self._breach:
            return self._breach
        lines = [line for line in self._printed.decode(errors="replace").splitlines() if line.strip()]
        text = lines[-1].strip() if lines else "it said nothing"
        return "".join(c if c.isprintable() else "?" for c in text)[:300]

    def exit(self) -> str:
        """How the process ended."""
        code = self._process.returncode
        if code is None:
            return "it still runs"
        return f"exit status {code}" if code >= 0 else f"signal {-code}"

    def send(self, message: pb.ToWorker) -> None:
        """Queue a message; a worker that is gone does not get it, and one that does not read is given up."""
        assert self._writer is not None
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > control.MAX_MESSAGE:
            self._give_up("it did not read its messages")
            return
        transport.write(control.encode(message))

    async def ask(self, request: pb.Request, on_progress: Callable[[pb.Event], Awaitable[None]]) -> pb.Event:
        """Forward a request and return its final event; `on_progress` gets those before it.

        When the caller is cancelled, the worker is told. Raises WorkerGone when the worker ends first.
        """
        if self.gone:
            raise WorkerGone(f"the session worker ended: {self.last_words()}")
        number = next(self._ids)
        self._waiting[number] = events = _Events()
        try:
            self.send(pb.ToWorker(request=pb.Forwarded(id=number, request=request)))
            while True:
                event = await events.get()
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
        """Close the control socket, give the worker a moment, then kill it and its children's session. Repeatable, and
        bounded, whatever the worker and its children do."""
        if self._writer is not None:
            self._writer.transport.abort()  # a close would wait until the worker has read what is on its way
        else:
            self._sock.close()
        await self._exited(EXIT_GRACE)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # it is the leader of its own session and group
        if not await self._exited(KILL_GRACE):
            log.error("worker %d outlives SIGKILL", self.pid)
        self._close_output()

    async def _exited(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        return self._process.returncode is not None
