"""All connections, and what each command does with them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from tpd.supervisor import users
from tpd.supervisor.connection import Connection, Progress
from tpd.supervisor.host.types import Host, HostError
from tpd.supervisor.worker import MODULE, WorkerGone
from tunnel.aio.tasks import Tasks
from tunnel.proto import daemon_pb2 as pb
from tunnel.version import VERSION

log = logging.getLogger("tpd")

WATCH_INTERVAL = 2.0
"""Seconds between looks at the resolver's files, rules, routes and filter: about a millisecond of work."""
UNDO_GRACE = 5.0
"""Seconds for which an answer waits until what a dead worker left is undone."""
MAX_PER_USER = 8
"""Connections of one user at once."""
_NAME = re.compile(r"[A-Za-z0-9._@:/-]{1,253}")
"""What a connection may be called: others read its name in their sentences, and root in the log."""


class Refused(Exception):
    """A command that is not done. The text is one sentence for the user."""

    def __init__(self, text: str, category: pb.Category.ValueType = pb.USER, *, retryable: bool = False) -> None:
        super().__init__(text)
        self.category = category
        self.retryable = retryable


class Supervisor:
    """Owns the connections. Every method acts for one user, who sees and changes only their own; root all."""

    def __init__(self, host: Host, tasks: Tasks, *, module: str = MODULE) -> None:
        self._host = host
        self._tasks = tasks
        self._module = module
        self._connections: list[Connection] = []
        self._lost: dict[int, list[pb.ConnectionStatus]] = {}
        self._connecting: dict[int, asyncio.Lock] = {}
        self._lock = asyncio.Lock()
        self.stop = asyncio.Event()

    async def handle(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        """The final event that answers a request. Never raises but CancelledError.

        What a dead worker had asked for is undone by then: whoever runs a command finds the host as it was.
        """
        await self._undone(user)  # a connect, for one, finds no remains in its way
        event = await self._answer(user, request, on_progress)
        await self._undone(user)
        return event

    async def _undone(self, user: users.User) -> None:
        dying = [one for one in self._visible(user) if one.worker is not None and one.worker.gone]
        if dying:
            with suppress(TimeoutError):
                async with asyncio.timeout(UNDO_GRACE):
                    await asyncio.gather(*(one.undone.wait() for one in dying))

    async def _answer(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        try:
            return await self._dispatch(user, request, on_progress)
        except Refused as refused:
            error = pb.Error(text=str(refused), category=refused.category, retryable=refused.retryable)
        except HostError as host_error:
            error = pb.Error(text=str(host_error), category=pb.CONFIG)
        except WorkerGone as gone:
            error = pb.Error(text=str(gone), category=pb.INTERNAL, retryable=True)
        except OSError as os_error:
            error = pb.Error(text=f"the laptop's system refuses what tpd needs: {os_error}", category=pb.CONFIG)
        except Exception as bug:  # the caller must hear something, and the daemon must live on
            log.exception("request %s", request.WhichOneof("command"))
            error = pb.Error(text=f"tpd failed on this command ({type(bug).__name__})", category=pb.INTERNAL)
        return pb.Event(error=error)

    async def _dispatch(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        command = request.WhichOneof("command")
        if request.version != VERSION and command not in ("quit", "get_version"):
            raise Refused(
                f"tpd is version {VERSION} and tpctl is version {request.version or 'unknown'}; "
                "run: tpctl quit -s, then the same command again"
            )
        match command:
            case "get_version":
                managers = {
                    one.label: one.result.manager_version for one in self._visible(user) if one.result is not None
                }
                return pb.Event(get_version=pb.VersionResult(daemon=VERSION, managers=managers))
            case "status":
                return pb.Event(status=await self._status(user, request))
            case "connect":
                return await self._connect(user, request, on_progress)
            case "quit":
                return pb.Event(quit=await self._quit(user, request, on_progress))
            case "list" | "replace" | "leave" | "list_namespaces":
                return await self._one(user, request.connection).ask(request, on_progress)
            case _:
                raise Refused("tpd does not know this command; tpctl and tpd must have the same version")

    # ---- finding

    def _visible(self, user: users.User) -> list[Connection]:
        return [one for one in self._connections if user.uid in (0, one.user.uid)]

    def _one(self, user: users.User, name: str) -> Connection:
        """The connection of that name, or the only one. Raises Refused."""
        visible = self._visible(user)
        if not visible:
            raise Refused("not connected; run: tpctl connect")
        found = [one for one in visible if one.name == name] if name else visible
        own = [one for one in found if one.user.uid == user.uid]
        found = own or found
        names = ", ".join(sorted(one.label for one in visible))
        if not found:
            raise Refused(f"there is no connection named {name}; there is {names}")
        if len(found) > 1:
            raise Refused(f"there are several connections; choose one with --use: {names}")
        return found[0]

    # ---- commands

    async def _status(self, user: users.User, request: pb.Request) -> pb.StatusResult:
        shown = [self._one(user, request.connection)] if request.connection else self._visible(user)
        lost = [status for uid, entries in self._lost.items() if user.uid in (0, uid) for status in entries]
        statuses = await asyncio.gather(*(one.status() for one in shown))
        return pb.StatusResult(version=VERSION, pid=os.getpid(), connections=[*statuses, *lost])

    async def _connect(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        if request.connect.name and not _NAME.fullmatch(request.connect.name):
            raise Refused("a connection's name has only letters, digits and ._@:/-, at most 253; choose another --name")
        async with self._connecting.setdefault(user.uid, asyncio.Lock()):
            own = [one for one in self._connections if one.user.uid == user.uid and not one.ended]
            name = request.connect.name
            if not name and own:
                return await self._one(user, "").ask(request, on_progress)
            for one in own:
                if one.name == name:
                    return await one.ask(request, on_progress)
            if len(own) >= MAX_PER_USER:
                raise Refused(f"you have {MAX_PER_USER} connections, which is the limit; end one with: tpctl quit")
            return await self._new(user, request, on_progress)

    async def _new(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        if self.stop.is_set():
            raise Refused("tpd is being stopped; run the same command again", retryable=True)
        self._lost.pop(user.uid, None)
        connection = Connection(user, request, self._host, self._lock, self._module)
        self._connections.append(connection)
        served = False
        try:
            await connection.start()
            self._tasks.spawn(self._serve(connection), name=f"connection of {users.name(user.uid)}")
            event = await connection.ask(request, on_progress)
            if event.WhichOneof("event") != "connect":
                return event
            result = event.connect
            if not _NAME.fullmatch(result.name):
                raise Refused("the session worker gave the connection no possible name; choose one with --name")
            if any(
                one.name == result.name and one.user.uid == user.uid
                for one in self._connections
                if one is not connection
            ):
                raise Refused(f"a connection named {result.name} exists already; choose another with --name")
            connection.name, connection.result = result.name, result
            served = True
            return event
        finally:
            if not served:
                await self._end(connection)

    async def _serve(self, connection: Connection) -> None:
        """Until the worker is gone; what it asked for is undone then, whatever the reason."""
        try:
            await connection.run()
        except Exception:  # a bug in one connection must not end the others; what it asked for is undone below
            log.exception("connection %s", connection.label)
        finally:
            worker = connection.worker
            unexpected = not connection.ended and worker is not None
            if unexpected and worker is not None and connection.result is not None:
                reason = f"the session worker ended: {worker.last_words()}; run: tpctl connect"
                status = pb.ConnectionStatus(connection=connection.result, state="failed", reason=reason)
                self._lost.setdefault(connection.user.uid, [])[:] = [status]
            await self._end(connection)
            if unexpected and worker is not None:
                log.error("worker %d of %s ended by itself: %s", worker.pid, connection.label, worker.exit())

    async def _end(self, connection: Connection) -> None:
        await connection.close()
        if connection in self._connections:
            self._connections.remove(connection)

    async def _quit(self, user: users.User, request: pb.Request, on_progress: Progress) -> pb.QuitResult:
        ended = [self._one(user, request.connection)] if request.connection else self._visible(user)
        if not request.connection and user.uid == 0 and not request.quit.stop_daemon:
            ended = [one for one in ended if one.user.uid == 0] or ended
        others = [one for one in self._connections if one not in ended]
        if request.quit.stop_daemon and others:
            raise Refused(f"others are connected through this daemon ({len(others)}), so it goes on; run: tpctl quit")
        for uid in {user.uid, *(one.user.uid for one in ended)}:
            self._lost.pop(uid, None)
        left = await self._close_all(ended, on_progress)
        if request.quit.stop_daemon:
            self.stop.set()
        if problems := [one.problem for one in ended if one.problem]:
            then = "the next command of tpctl tries again" if request.quit.stop_daemon else "tpd goes on trying"
            raise HostError(f"disconnected, but {'; '.join(problems)}; {then}; look at: tpctl daemon logs")
        return pb.QuitResult(connections=[one.label for one in ended], not_released=left)

    async def watch(self) -> None:
        """Until cancelled: notice what others (DHCP, a VPN, a firewall's restart) do to the host under our hands."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            try:
                async with self._lock:
                    news = await self._host.tend()
            except Exception:  # whatever it is, the next look may be better
                log.exception("looking after the host")
                continue
            for connection in list(self._connections) if news else ():
                try:
                    await connection.resolvers_changed()
                except Exception:  # the others want to know, too
                    log.exception("connection %s: the laptop's resolvers changed", connection.label)

    async def shutdown(self) -> None:
        """End every connection in order: clusters first, then workers, then the host is as it was."""
        await self._close_all(list(self._connections), _ignore)

    async def _close_all(self, connections: list[Connection], on_progress: Progress) -> list[str]:
        async def close(connection: Connection) -> list[str]:
            try:
                return await connection.quit(on_progress)
            except Exception:  # its changes to the host are undone all the same
                log.exception("quit of %s", connection.label)
                return [f"{connection.label}: tpd failed on it"]
            finally:
                await self._end(connection)

        # Shielded: a caller that goes away in the middle must not leave the host half undone.
        left = await asyncio.shield(asyncio.gather(*(close(one) for one in connections)))
        return [text for texts in left for text in texts]


async def _ignore(event: pb.Event) -> None:
    """Progress that nobody waits for."""


Handler = Callable[[users.User, pb.Request, Progress], Coroutine[Any, Any, pb.Event]]
