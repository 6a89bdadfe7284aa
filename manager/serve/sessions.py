"""The sessions' port: the tunnel and the cluster's description, for live sessions only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from manager.kube.cluster import ClusterView
from manager.registry import LiveSessions
from manager.serve.acceptor import SessionAcceptor
from manager.serve.dns import ClusterDns
from manager.state.dialpolicy import DialPolicy
from tunnel.aio.byte_stream import ByteStream
from tunnel.aio.grpc_stream import tunnel_rpc_handler
from tunnel.aio.link_server import LinkServer
from tunnel.aio.tasks import Tasks
from tunnel.identity import Kind, NotTrusted, Proven, identify_peer
from tunnel.memory import budget, memory_limit
from tunnel.mux.link import Link
from tunnel.proto import manager_pb2

log = logging.getLogger(__name__)

SERVICE = "tpctl.manager.v1.Manager"
LINGER = 4 * 3600.0
"""Seconds for which a laptop without carrier keeps its flows; its lease usually ends before."""
OWN = 112 << 20
"""Bytes the process takes without flows: 64 MiB once loaded, and room for what it knows of the cluster."""
_BECOMES_LIVE = 2.0
"""Seconds a caller with a good certificate waits for its session to be published; the laptop gives an attempt 3 s."""

Context = Any
"""grpc.aio.ServicerContext; its type parameters say nothing here."""


class SessionsServer:
    """`Tunnel.Connect` and `Manager.WatchCluster`."""

    def __init__(self, live: LiveSessions, cluster: ClusterView, policy: DialPolicy, dns: ClusterDns) -> None:
        self._live = live
        self._cluster = cluster
        self._policy = policy
        self._dns = dns
        self._tasks = Tasks("sessions")
        self._links = LinkServer(
            make_acceptor=self._acceptor,
            name="sessions",
            linger=LINGER,
            budget=budget(memory_limit(), OWN),
            fair=True,
        )
        live.on_end.append(self._links.end_session)

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """For `server.add_generic_rpc_handlers`."""
        manager = grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "WatchCluster": grpc.unary_stream_rpc_method_handler(
                    self._watch_cluster,
                    request_deserializer=manager_pb2.WatchClusterRequest.FromString,
                    response_serializer=manager_pb2.Cluster.SerializeToString,
                )
            },
        )
        return tunnel_rpc_handler(self._connect), manager

    async def close(self) -> None:
        """Tell every laptop to dial again, and end what is under way."""
        self._links.close()
        await self._tasks.stop()

    def _acceptor(self, uid: str, link: Link) -> SessionAcceptor:
        return SessionAcceptor(lambda: self._live[uid], self._policy, self._dns, self._tasks, link.budget)

    async def _connect(self, stream: ByteStream, context: Context) -> None:
        proven = await self._authenticate(context)
        uid = proven.identity.id
        await self._while_it_lives(proven, context, lambda: self._links.serve(stream, uid))

    async def _watch_cluster(self, request: manager_pb2.WatchClusterRequest, context: Context) -> None:
        proven = await self._authenticate(context)

        async def tell() -> None:
            sent: manager_pb2.Cluster | None = None
            while True:
                await self._cluster.known.wait()
                current = self._cluster.current
                if current != sent:
                    await context.write(current)
                    sent = current
                else:
                    await self._cluster.changed()

        await self._while_it_lives(proven, context, tell)

    async def _authenticate(self, context: Context) -> Proven:
        """The live session behind a call; aborts it otherwise."""
        try:
            proven = identify_peer(context.auth_context(), Kind.SESSION)
        except NotTrusted as error:
            log.warning("refused a caller at %s: %s", context.peer(), error)
            await _abort(context, grpc.StatusCode.UNAUTHENTICATED, str(error))
        if proven.expires_at <= time.time():
            await _abort(context, grpc.StatusCode.UNAUTHENTICATED, "the session's certificate has expired")
        if await self._live.await_live(proven.identity.id, _BECOMES_LIVE) is None:
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, "there is no such live session; connect again")
        return proven

    async def _while_it_lives(self, proven: Proven, context: Context, serve: Callable[[], Awaitable[None]]) -> None:
        """Serve until done, or until the session or the certificate ends."""
        uid = proven.identity.id
        with self._live.stream(uid) as ended:
            serving = asyncio.get_running_loop().create_task(_run(serve), name=f"stream of session {uid}")
            waiting = asyncio.get_running_loop().create_task(_run(ended.wait), name=f"end of session {uid}")
            try:
                await asyncio.wait(
                    {serving, waiting},
                    timeout=max(0.0, proven.expires_at - time.time()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if ended.is_set():
                    # The link's own go-away tells the laptop why; it gets a moment to leave.
                    await asyncio.wait({serving}, timeout=1.0)
            finally:
                for task in (serving, waiting):
                    task.cancel()
                await asyncio.wait({serving, waiting})
            if not serving.cancelled() and (error := serving.exception()) is not None:
                raise error
        if self._live[uid] is None:
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, "the session has ended")
        if proven.expires_at <= time.time():
            await _abort(context, grpc.StatusCode.ABORTED, "the session's certificate has expired; dial again")


async def _run(call: Callable[[], Awaitable[object]]) -> None:
    await call()


async def _abort(context: Context, code: grpc.StatusCode, text: str) -> NoReturn:
    await context.abort(code, text)
    raise AssertionError("abort raises")
