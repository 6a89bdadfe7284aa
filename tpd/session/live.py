"""A live session: the Session object, the link to its manager, and what the manager says about the cluster.

When it ends (object deleted, lease lost, manager does not know it), a new one takes its place; see `connection.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from tpd.session.carriers.peer import CallFailed, failures
from tpd.session.carriers.port_forward import PortForward
from tpd.session.kube import manager as manager_lookup
from tpd.session.kube import paths
from tpd.session.kube.session_object import SessionObject
from tpd.session.peer_link import PeerLink, Shared, Where
from tpd.session.together import together
from tunnel.aio.link_client import LinkState
from tunnel.endpoint import EndpointHandler, Refusal
from tunnel.kube.api import Api
from tunnel.mux.flow import Flow, FlowHandler
from tunnel.mux.link import Link
from tunnel.mux.queries import Query
from tunnel.proto import manager_pb2
from tunnel.version import VERSION

log = logging.getLogger(__name__)

_WATCH = "/tpctl.manager.v1.Manager/WatchCluster"
_WATCH_PAUSE = 1.0


class _Nothing:
    """The manager may open nothing on a laptop, and ask nothing."""

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        flow.refuse(Refusal.PROHIBITED)
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class LiveSession:
    """`run()` keeps everything until the session ends; `cluster` is the newest announcement."""

    def __init__(
        self,
        api: Api,
        session: SessionObject,
        pod: str,
        carrier: asyncio.Task[PortForward],
        *,
        on_cluster: Callable[[manager_pb2.Cluster], None],
        on_state: Callable[[LinkState], None],
        shared: Shared,
    ) -> None:
        self._api = api
        self.session = session
        self._pod = pod
        """Which pod to dial, where that is known; empty: ask."""
        self._on_cluster = on_cluster
        self.on_state = on_state
        self.manager = PeerLink(
            api,
            name="manager",
            session=session.identity.uid,
            locate=self._locate,
            identity=lambda: session.identity,
            acceptor=_Nothing(),
            on_state=self._state,
            shared=shared,
            first=carrier,
        )

    @property
    def link(self) -> Link:
        """The link to the manager."""
        return self.manager.link

    async def run(self) -> None:
        """Raises what ended the session: `SessionVanished`, `LinkRefused`, `SessionError`."""
        await together(self.session.keep(), self.manager.run(), self._watch_cluster())

    def _state(self, state: LinkState) -> None:
        if state is not LinkState.CONNECTED:
            self._pod = ""
        self.on_state(state)

    async def _locate(self) -> Where:
        namespace = self.session.namespace
        pod = self._pod
        if not pod:
            pods = await manager_lookup.manager_pods(self._api, namespace)
            pod = str(manager_lookup.choose(pods, namespace)["metadata"]["name"])
        # While there is a line, the bulk lane goes the same way; without one it may be another pod by the next dial.
        self._pod = pod if self.link.attached else ""
        return Where(namespace, pod, paths.SESSIONS_PORT, f"{namespace}.manager.tpctl")

    async def _watch_cluster(self) -> None:
        peer = None
        request = manager_pb2.WatchClusterRequest(version=VERSION)
        while True:
            peer = await self.manager.channel(other_than=peer)
            while not peer.ended.done():
                try:
                    with failures():
                        call: Any = peer.channel.unary_stream(
                            _WATCH,
                            request_serializer=manager_pb2.WatchClusterRequest.SerializeToString,
                            response_deserializer=manager_pb2.Cluster.FromString,
                        )(request)
                        async for cluster in call:
                            self._on_cluster(cluster)
                except CallFailed as failed:
                    log.info("watching the cluster: %s", failed)
                await asyncio.wait([peer.ended], timeout=_WATCH_PAUSE)
