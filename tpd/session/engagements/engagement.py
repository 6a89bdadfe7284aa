"""One replace: its object in the cluster, what it maps to here, and how it stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from tpd.session.control import Progress
from tpd.session.engagements.agents import Agents, pods_of
from tpd.session.engagements.ports import PortMapping
from tpd.session.errors import SessionError
from tpd.session.kube.engagement_object import EngagementObject
from tpd.session.kube.session_object import SessionObject
from tunnel.aio.tasks import Tasks
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError
from tunnel.proto import daemon_pb2

log = logging.getLogger(__name__)

ACTIVE_LIMIT = 360.0
"""Seconds without any change of the status after which a replace is given up; the manager gives up earlier, with a
reason. However long it takes altogether depends on the number of pods and how slowly they start."""
SIGN_OF_LIFE = 30.0
"""Seconds after which a wait says that it goes on."""

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
        self._creating: asyncio.Task[None] | None = None
        self.ending = False
        """Given back, or about to be."""
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

    async def begin(
        self,
        user: str,
        session: SessionObject,
        agents: Agents,
        on_uid: Callable[[str], None],
        is_current: Callable[[], bool],
    ) -> None:
        """Create the object and follow it. Raises `SessionError`, also when it is not wanted any more by then:
        is_current() says whether the session still is that of the connection."""
        namespace, kind, workload, container = self.key
        made = EngagementObject(self._api, namespace, kind, workload, container)
        self.object, self.status, self.gone = made, {}, False
        # A request under way cannot be called back: whoever ends this waits for it, or it would land after the end.
        self._creating = asyncio.get_running_loop().create_task(
            self._create(made, user, session, is_current), name=f"create.{workload}"
        )
        await asyncio.shield(self._creating)
        self._refuse_late(is_current)
        on_uid(made.uid)
        self._following = self._tasks.spawn(self._follow(made, agents), name=f"engagement.{workload}")

    async def _create(
        self, made: EngagementObject, user: str, session: SessionObject, is_current: Callable[[], bool]
    ) -> None:
        await made.create(user, session, self.mappings)
        try:
            self._refuse_late(is_current)
        except SessionError:
            with suppress(KubeError):  # then the session's lease ends it
                await made.delete()
            raise

    def _refuse_late(self, is_current: Callable[[], bool]) -> None:
        if self.ending:
            raise SessionError(f"{self.title} was given back meanwhile")
        if not is_current():
            raise SessionError("the session has ended meanwhile; try again", retryable=True)

    async def _follow(self, followed: EngagementObject, agents: Agents) -> None:
        def on_status(status: dict[str, Any]) -> None:
            agents.want(followed.uid, pods_of(followed.namespace, status))
            self._set(status)

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

    def fail(self, text: str) -> None:
        """It could not be asked for again in a new session."""
        self._set({"phase": "Failed", "message": text})

    def wait(self, text: str) -> None:
        """It could not be asked for again yet."""
        self._set({"phase": "Pending", "message": text})

    def _set(self, status: dict[str, Any]) -> None:
        if status != self.status:
            self.status = status
            self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def active(self, progress: Progress, pods: int) -> None:
        """Wait until the container is ours in the workload's `pods` pods. Raises `SessionError` with the manager's
        reason when it will not be."""
        quiet = 0.0
        while True:
            changed = self._changed
            phase, message = str(self.status.get("phase") or ""), str(self.status.get("message") or "")
            if self.gone:
                raise SessionError(f"the engagement of {self.title} was deleted while it began; try again")
            if phase == "Failed":
                raise SessionError(_sentence(message or str(self.status.get("reason"))), daemon_pb2.CLUSTER)
            if phase == "Active":
                return
            if quiet >= ACTIVE_LIMIT:
                raise SessionError(
                    f"{self.title} is not replaced, and nothing has changed for {quiet:.0f} s:"
                    f" {_sentence(message) or 'no reason given'}",
                    daemon_pb2.CLUSTER,
                    retryable=True,
                )
            progress.say("replace", self._how_far(phase, message, pods, quiet))
            try:
                async with asyncio.timeout(SIGN_OF_LIFE):
                    await changed.wait()
                quiet = 0.0
            except TimeoutError:
                quiet += SIGN_OF_LIFE

    def _how_far(self, phase: str, message: str, pods: int, quiet: float) -> str:
        text = _sentence(message) or _WORDS.get(phase, "asking for the container")
        if pods > 1 and phase == "Accepted":
            text += f"; {len(self.status.get('pods') or [])} of {pods} pods are replaced"
        return f"{text}; nothing new for {quiet:.0f} s" if quiet else text

    async def end(self) -> None:
        """Stop following and delete the object; `begin` does nothing from now on. Raises `KubeError`, and then it is
        as wanted as before."""
        self.ending = True
        self.stop()
        creating = self._creating
        if creating is not None:
            await asyncio.wait([creating])
            if not creating.cancelled():
                creating.exception()  # whoever waited for it heard it
        try:
            if self.object is not None:
                await self.object.delete()
        except KubeError:
            self.ending = False
            raise

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
