"""What the caller may ask for, and the one final event that each request gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tpd.session.connect import check_namespace
from tpd.session.connection import Connection
from tpd.session.control import Progress
from tpd.session.engagements.engagements import Engagements
from tpd.session.engagements.workload import containers, describe, why_not
from tpd.session.errors import SessionError
from tpd.session.kube import workloads
from tunnel.aio.tasks import Tasks
from tunnel.proto import daemon_pb2
from tunnel.version import VERSION

log = logging.getLogger(__name__)

Send = Callable[[daemon_pb2.Event], None]


_UNDO_LIMIT = 1.5
"""Seconds that a quit leaves the other requests to undo what they began; leases end the rest."""


class Commands:
    """Runs forwarded requests, each a task of `tasks` that sends progress and one final event."""

    def __init__(self, connection: Connection, log_file: str, tasks: Tasks) -> None:
        self._connection = connection
        self._log_file = log_file
        self._tasks = tasks
        self._running: dict[int, asyncio.Task[None]] = {}
        self._quits: set[int] = set()

    def start(self, number: int, request: daemon_pb2.Request, send: Send) -> None:
        """Begin to answer a request."""
        kind = request.WhichOneof("command")
        if kind == "quit":
            self._quits.add(number)
        elif self._quits:
            send(_ended_by_quit())
            return
        task = self._tasks.spawn(self._run(request, send), name=f"{kind}.{number}")
        self._running[number] = task
        task.add_done_callback(lambda _: self._running.pop(number, None))

    def cancel(self, number: int) -> None:
        """The caller went away: undo what the request began. A quit is carried out all the same."""
        if number not in self._quits and (task := self._running.get(number)) is not None:
            task.cancel()

    async def _run(self, request: daemon_pb2.Request, send: Send) -> None:
        try:
            event = await self._answer(request, Progress(send))
        except SessionError as error:
            event = error.event()
        except asyncio.CancelledError:
            if self._quits:
                send(_ended_by_quit())
            raise
        except Exception:  # the caller must get an answer, whatever bug this is; the log has the rest
            log.exception("request failed")
            event = SessionError(
                f"this is a bug in tpctl; the log says more: {self._log_file}", daemon_pb2.INTERNAL
            ).event()
        send(event)

    async def _end_others(self) -> None:
        """Cancel what else is under way, and let it undo itself while the API server can still be asked."""
        others = [task for number, task in self._running.items() if number not in self._quits]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_UNDO_LIMIT)

    async def _answer(self, request: daemon_pb2.Request, progress: Progress) -> daemon_pb2.Event:
        connection = self._connection
        match request.WhichOneof("command"):
            case "connect":
                return daemon_pb2.Event(connect=await connection.connect(request.connect, progress))
            case "status":
                return daemon_pb2.Event(
                    status=daemon_pb2.StatusResult(version=VERSION, connections=[connection.status()])
                )
            case "list":
                return daemon_pb2.Event(list=await self._list(request.list, progress))
            case "list_namespaces":
                return daemon_pb2.Event(list_namespaces=daemon_pb2.NamespacesResult(namespaces=connection.namespaces()))
            case "replace":
                engagements, namespace = self._engagements()
                return daemon_pb2.Event(replace=await engagements.replace(request.replace, namespace, progress))
            case "leave":
                engagements, namespace = self._engagements()
                return daemon_pb2.Event(leave=await engagements.leave(request.leave, namespace, progress))
            case "quit":
                name = connection.settings.name if connection.settings else ""
                progress.say("quit", "giving back what is engaged and ending the session")
                await self._end_others()
                left = await connection.close()
                return daemon_pb2.Event(
                    quit=daemon_pb2.QuitResult(connections=[name] if name else [], not_released=left)
                )
            case other:
                raise SessionError(f"the session worker does not know the request {other!r}", daemon_pb2.INTERNAL)

    def _engagements(self) -> tuple[Engagements, str]:
        connection = self._connection
        if connection.engagements is None or connection.settings is None or connection.live is None:
            raise SessionError("the connection has no session at the moment; look at: tpctl status", retryable=True)
        return connection.engagements, connection.settings.namespace

    async def _list(self, request: daemon_pb2.ListWorkloads, progress: Progress) -> daemon_pb2.ListResult:
        connection = self._connection
        api, settings, live = connection.api, connection.settings, connection.live
        if api is None or settings is None:
            raise SessionError("not connected; run: tpctl connect")
        namespace = request.namespace or settings.namespace
        progress.say("list", f"asking {api.server} for the workloads of namespace {namespace}")
        session = live.session.identity.uid if live is not None else ""
        manager_namespace = live.session.namespace if live is not None else settings.manager_namespace
        found, held = await asyncio.gather(workloads.list_all(api, namespace), workloads.engagements_of(api, namespace))
        if not found:
            await check_namespace(api, namespace)
        result = daemon_pb2.ListResult()
        for workload in found:
            kind, name = workload["kind"], workload["metadata"]["name"]
            names = [str(c["name"]) for c in containers(workload)]
            mine = [e for e in held if e["spec"]["workload"] == {"kind": kind, "name": name}]
            state, reason = describe(names, mine, session, why_not(workload, manager_namespace))
            result.workloads.add(
                kind=kind, name=name, namespace=namespace, containers=names, state=state, reason=reason
            )
        return result


def _ended_by_quit() -> daemon_pb2.Event:
    return SessionError("the connection was ended by tpctl quit").event()
