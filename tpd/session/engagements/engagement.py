"""One replace: its object in the cluster, what it maps to here, and how it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tpd.session.control import Progress
from tpd.session.engagements.agents import Agents, pods_of
from tpd.session.engagements.ports import PortMapping
from tpd.session.errors import SessionError
from tpd.session.kube.engagement_object import EngagementObject
from tpd.session.kube.session_object import SessionObject
from tunnel.aio.tasks import Tasks
from tunnel.kube.api import Api
from tunnel.proto import daemon_pb2

log = logging.getLogger(__name__)

ACTIVE_LIMIT = 300.0
"""Seconds until a replace must be active; the manager gives up earlier, with a reason."""

Key = tuple[str, str, str, str]
"""(namespace, kind, workload, container)."""


class Engagement:
    """A claim on one container that outlives the session it began in: `begin` may be called again."""

    def __init__(
        self,
        api: Api,
        key: Key,
        mappings: Sequence[PortMapping],
        address: str,
        tasks: Tasks,
        on_gone: Callable[[str], None],
    ) -> None:
        """on_gone(uid): the object that `begin` made was deleted by somebody else."""
        self._api = api
        self.key = key
        self.mappings = list(mappings)
        self.address = address
        self._tasks = tasks
        self._on_gone = on_gone
        self._following: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.object: EngagementObject | None = None
        self.status: dict[str, Any] = {}
        self.gone = False

    @property
    def uid(self) -> str:
        """Of the object; empty before it exists."""
        return self.object.uid if self.object is not None else ""

    @property
    def title(self) -> str:
        """`deployment/orders, container app`."""
        _, kind, workload, container = self.key
        return f"{kind.lower()}/{workload}, container {container}"

    async def begin(self, user: str, session: SessionObject, agents: Agents, on_uid: Callable[[str], None]) -> None:
        """Create the object and follow it. Raises `SessionError`."""
        namespace, kind, workload, container = self.key
        wanted = EngagementObject(self._api, namespace, kind, workload, container)
        await wanted.create(user, session, self.mappings)
        self.object, self.status, self.gone = wanted, {}, False
        on_uid(wanted.uid)
        self._following = self._tasks.spawn(self._follow(wanted, agents), name=f"engagement.{workload}")

    async def _follow(self, followed: EngagementObject, agents: Agents) -> None:
        def on_status(status: dict[str, Any]) -> None:
            self.status = status
            agents.want(followed.uid, pods_of(followed.namespace, status))
            self._tell()

        await followed.follow(on_status)
        log.warning("the engagement of %s was deleted in the cluster", self.title)
        self.gone = True
        agents.want(followed.uid, [])
        self._on_gone(followed.uid)
        self._tell()

    @property
    def lost(self) -> bool:
        """Whether it holds nothing any more, and will not by itself."""
        return self.gone or self.status.get("phase") == "Failed"

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def active(self, progress: Progress) -> None:
        """Wait until the container is ours. Raises `SessionError` with the manager's reason when it will not be."""
        try:
            async with asyncio.timeout(ACTIVE_LIMIT):
                while True:
                    changed = self._changed
                    phase, message = self.status.get("phase"), str(self.status.get("message") or "")
                    if self.gone:
                        raise SessionError(f"the engagement of {self.title} was deleted while it began; try again")
                    if phase == "Failed":
                        raise SessionError(_sentence(message or str(self.status.get("reason"))), daemon_pb2.CLUSTER)
                    if phase == "Active":
                        return
                    progress.say("replace", _sentence(message) or _WORDS.get(str(phase), "asking for the container"))
                    await changed.wait()
        except TimeoutError as error:
            raise SessionError(
                f"{self.title} was not replaced within {ACTIVE_LIMIT:.0f} s:"
                f" {self.status.get('message') or 'no reason given'}",
                daemon_pb2.CLUSTER,
                retryable=True,
            ) from error

    async def end(self) -> None:
        """Stop following and delete the object. Raises `KubeError`."""
        self.stop()
        if self.object is not None:
            await self.object.delete()

    def stop(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def describe(self) -> daemon_pb2.EngagementStatus:
        """For `tpctl status`."""
        namespace, kind, workload, container = self.key
        return daemon_pb2.EngagementStatus(
            uid=self.uid,
            mode="replace",
            workload=f"{kind.lower()}/{workload}",
            namespace=namespace,
            container=container,
            ports=[
                daemon_pb2.PortMapping(local=m.local, container=m.container, protocol=m.protocol, address=self.address)
                for m in self.mappings
            ],
            phase="Gone" if self.gone else str(self.status.get("phase") or "Pending"),
            reason="somebody deleted it in the cluster, and the original comes back; to have it again: tpctl replace"
            if self.gone
            else str(self.status.get("message") or self.status.get("reason") or ""),
            pods=[] if self.gone else [str(pod["name"]) for pod in self.status.get("pods") or []],
        )


_WORDS = {
    "Pending": "waiting for the traffic-manager",
    "Accepted": "replacing the container; waiting for its pods",
}


def _sentence(text: str) -> str:
    """The manager's sentences end with a full stop and begin with a capital; ours do neither."""
    text = text.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
