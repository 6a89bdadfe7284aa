"""The links to the agents that serve our engagements: one for each pod, however many engagements it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tpd.session.carriers.peer import CallFailed, failures
from tpd.session.engagements.inbound import InboundAcceptor
from tpd.session.engagements.targets import Targets
from tpd.session.errors import SessionError
from tpd.session.kube.session_object import SessionObject
from tpd.session.peer_link import PeerLink, Shared, Where
from tunnel.aio.link_client import LinkRefused, LinkState
from tunnel.aio.tasks import Tasks
from tunnel.kube.api import Api
from tunnel.proto import agent_pb2, daemon_pb2

log = logging.getLogger(__name__)

_GET_ENVIRONMENT = "/tpctl.agent.v1.Agent/GetEnvironment"
_ENVIRONMENT_LIMIT = 20.0
_CALL_LIMIT = 5.0
_CALL_PAUSE = 0.5
_REFUSED_PAUSE = 2.0


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod whose agent serves an engagement (Engagement status)."""

    namespace: str
    name: str
    uid: str
    port: int


def pods_of(namespace: str, status: dict[str, Any]) -> list[Pod]:
    """Those that a status names."""
    return [
        Pod(namespace, str(pod["name"]), str(pod["uid"]), int(pod.get("port") or 9900))
        for pod in status.get("pods") or []
    ]


class AgentLink:
    """The link to one agent. `serves`: uids of the engagements."""

    def __init__(
        self, api: Api, session: SessionObject, pod: Pod, targets: Targets, tasks: Tasks, shared: Shared
    ) -> None:
        self.pod = pod
        self._shared = shared
        self.serves: set[str] = set()
        self._api = api
        self._session = session
        self._acceptor = InboundAcceptor(targets, lambda: self.serves, tasks)
        self.peer = self._make()
        self._task = tasks.spawn(self._run(), name=f"agent.{pod.name}")

    def _make(self) -> PeerLink:
        where = Where(self.pod.namespace, self.pod.name, self.pod.port, f"{self.pod.uid}.agent.tpctl")

        async def locate() -> Where:
            return where

        return PeerLink(
            self._api,
            name=f"agent/{self.pod.name}",
            session=self._session.identity.uid,
            locate=locate,
            identity=lambda: self._session.identity,
            acceptor=self._acceptor,
            on_state=self._on_state,
            shared=self._shared,
        )

    async def _run(self) -> None:
        """The agent may hear of the grant after us: a refusal is not final while the status names the pod."""
        while True:
            try:
                await self.peer.run()
            except LinkRefused as refused:
                log.info("agent in %s refused us: %s", self.pod.name, refused)
                await asyncio.sleep(_REFUSED_PAUSE)
                self.peer = self._make()

    def _on_state(self, state: LinkState) -> None:
        log.info("agent in %s: %s", self.pod.name, state.value)

    async def environment(self, engagement: str) -> dict[str, str]:
        """The container's environment. Raises `SessionError` when the agent does not answer."""
        why = ""
        try:
            async with asyncio.timeout(_ENVIRONMENT_LIMIT):
                while True:
                    try:
                        return await self._ask_environment(engagement)
                    except CallFailed as failed:
                        why = str(failed)
                        await asyncio.sleep(_CALL_PAUSE)
                    except TimeoutError:
                        why = self.peer.trouble
        except TimeoutError as error:
            why = why or self.peer.trouble or "it cannot be reached"
            raise SessionError(
                f"the traffic-agent in pod {self.pod.name} does not give the environment: {why};"
                f" look at its log: kubectl -n {self.pod.namespace} logs {self.pod.name} -c traffic-agent",
                daemon_pb2.CLUSTER,
                retryable=True,
            ) from error

    async def _ask_environment(self, engagement: str) -> dict[str, str]:
        async with asyncio.timeout(_CALL_LIMIT):  # a link that was refused has a successor, with channels of its own
            peer = await self.peer.channel()
        with failures():
            call: Any = peer.channel.unary_unary(
                _GET_ENVIRONMENT,
                request_serializer=agent_pb2.EnvironmentRequest.SerializeToString,
                response_deserializer=agent_pb2.EnvironmentResponse.FromString,
            )
            answer = await call(agent_pb2.EnvironmentRequest(engagement=engagement), timeout=_CALL_LIMIT)
        return dict(answer.variables)

    async def close(self) -> None:
        """End the link."""
        self._task.cancel()
        await asyncio.wait([self._task], timeout=2)


class Agents:
    """All links to agents of one session."""

    def __init__(self, api: Api, session: SessionObject, targets: Targets, tasks: Tasks, shared: Shared) -> None:
        self._api = api
        self._session = session
        self._targets = targets
        self._tasks = tasks
        self._shared = shared
        self._links: dict[str, AgentLink] = {}

    def want(self, engagement: str, pods: Sequence[Pod]) -> None:
        """This engagement is served by exactly these pods now: open what is missing, close what nobody needs."""
        wanted = {pod.uid: pod for pod in pods}
        for uid, pod in wanted.items():
            link = self._links.get(uid)
            if link is None:
                link = self._links[uid] = AgentLink(
                    self._api, self._session, pod, self._targets, self._tasks, self._shared
                )
            link.serves.add(engagement)
        for uid, link in list(self._links.items()):
            if uid not in wanted:
                link.serves.discard(engagement)
                if not link.serves:
                    del self._links[uid]
                    self._tasks.spawn(link.close(), name=f"close.{link.pod.name}")

    def of(self, engagement: str) -> list[AgentLink]:
        """The links that serve this engagement."""
        return [link for link in self._links.values() if engagement in link.serves]

    async def close(self) -> None:
        """End all links."""
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))
