"""All engagements of a connection: beginning, ending, and beginning again when the session had to be made anew."""

from __future__ import annotations

import asyncio
import logging
import random

from tpd.session.control import Progress
from tpd.session.engagements import ports as port_mapping
from tpd.session.engagements.agents import Agents
from tpd.session.engagements.engagement import Engagement, Key
from tpd.session.engagements.handback import wait_for_agents, wait_for_original, wanted_pods
from tpd.session.engagements.targets import Targets
from tpd.session.engagements.workload import choose_container, split, why_not
from tpd.session.errors import SessionError, from_kube
from tpd.session.kube import workloads
from tpd.session.kube.session_object import SessionObject
from tpd.session.peer_link import Shared
from tunnel.aio.backoff import Backoff
from tunnel.aio.tasks import Tasks
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError
from tunnel.proto import daemon_pb2

log = logging.getLogger(__name__)

LOCAL_ADDRESS = "127.0.0.1"
_LEAST_PAUSE, _MOST_PAUSE = 0.5, 10.0
"""Seconds between attempts to have a container again in a new session."""


class Engagements:
    """`use(session)` first; again whenever there is a new one."""

    def __init__(self, api: Api, user: str, shared: Shared) -> None:
        self._shared = shared
        self._api = api
        self._user = user
        self._tasks = Tasks("engagements")
        self._targets = Targets()
        self._session: SessionObject | None = None
        self._agents: Agents | None = None
        self._all: dict[Key, Engagement] = {}

    def use(self, session: SessionObject) -> None:
        """A session is live: what was engaged in the one before is asked for again."""
        self._session = session
        self._agents = Agents(self._api, session, self._targets, self._tasks, self._shared)
        for engagement in self._all.values():
            self._tasks.spawn(self._again(engagement, session), name="again")

    async def pause(self) -> None:
        """The session has ended, and with it what it held."""
        agents, self._agents, self._session = self._agents, None, None
        for engagement in self._all.values():
            engagement.stop()
            self._targets.remove(engagement.uid)
        if agents is not None:
            await agents.close()

    async def _again(self, engagement: Engagement, session: SessionObject) -> None:
        backoff = Backoff(_LEAST_PAUSE, _MOST_PAUSE, random.random)
        while session is self._session and not engagement.ending:
            try:
                await self._begin(engagement, session)
                return
            except SessionError as error:
                if session is not self._session or engagement.ending:
                    return
                if not error.retryable:
                    log.warning("%s is lost: %s", engagement.title, error.text)
                    engagement.fail(error.text)
                    return
                log.info("%s cannot be asked for yet: %s", engagement.title, error.text)
                engagement.wait(error.text)
            await asyncio.sleep(backoff.next())

    async def _begin(self, engagement: Engagement, session: SessionObject) -> None:
        agents = self._agents
        if agents is None or session is not self._session:
            raise SessionError("the session has ended meanwhile; try again", retryable=True)
        await engagement.begin(
            self._user,
            session,
            agents,
            lambda uid: self._targets.add(uid, engagement.address, engagement.mappings),
            lambda: session is self._session,
        )

    async def replace(
        self, request: daemon_pb2.Replace, connected: str, progress: Progress
    ) -> daemon_pb2.ReplaceResult:
        """Replace a container. Raises `SessionError`, and then nothing is left of it; so when cancelled."""
        session = self._session
        if session is None:
            raise SessionError("the session is being made anew; try again in a moment", retryable=True)
        namespace = request.namespace or connected
        progress.say("workload", f"looking for {request.workload} in namespace {namespace}")
        workload = await workloads.find(self._api, namespace, request.workload)
        container = choose_container(workload, request.container)
        if reason := why_not(workload, session.namespace):
            raise SessionError(
                f"{workload['kind'].lower()} {workload['metadata']['name']} cannot be replaced: {reason}"
            )
        mappings = port_mapping.mappings(request.ports, port_mapping.declared_ports(container), none=request.no_ports)
        key = (namespace, str(workload["kind"]), str(workload["metadata"]["name"]), str(container["name"]))
        address = request.address or LOCAL_ADDRESS
        self._refuse_busy(key, mappings, address)
        engagement = Engagement(self._api, key, mappings, address, self._tasks, self._targets.remove)
        progress.done("workload", f"using {key[1].lower()} {key[2]}, container {key[3]}")
        progress.say("replace", "asking for the container")
        lost = self._all.get(key)
        self._all[key] = engagement
        try:
            if lost is not None:
                await self._undo(lost)
            await self._begin(engagement, session)
            await engagement.active(progress, wanted_pods(workload))
            progress.say("replace", "reading the container's environment")
            environment = await self._environment(engagement)
            await wait_for_agents(self._api, namespace, engagement.describe().pods, progress)
        except BaseException:
            await asyncio.shield(self._undo(engagement))
            raise
        progress.done("replace", f"{engagement.title} is replaced")
        return daemon_pb2.ReplaceResult(engagement=engagement.describe(), environment=environment)

    async def _environment(self, engagement: Engagement) -> dict[str, str]:
        """From an agent that serves it in the session of now, which may be another than that in which it began."""
        links = self._agents.of(engagement.uid) if self._agents is not None else []
        if not links:
            raise SessionError(
                f"the session ended while {engagement.title} was being replaced; try again",
                daemon_pb2.CLUSTER,
                retryable=True,
            )
        return await links[0].environment(engagement.uid)

    async def _undo(self, engagement: Engagement) -> None:
        self._forget(engagement)
        try:
            async with asyncio.timeout(5):
                await engagement.end()
        except (KubeError, TimeoutError) as error:
            log.warning("cannot delete the engagement of %s; its lease ends it: %s", engagement.title, error)

    def _forget(self, engagement: Engagement) -> None:
        if self._all.get(engagement.key) is engagement:
            del self._all[engagement.key]
        self._targets.remove(engagement.uid)
        if self._agents is not None:
            self._agents.want(engagement.uid, [])

    def _refuse_busy(self, key: Key, mappings: list[port_mapping.PortMapping], address: str) -> None:
        held = self._all.get(key)
        if held is not None and not held.lost:
            raise SessionError(f"{held.title} is replaced by this connection already; run: tpctl leave {key[2]}")
        others = [e for e in self._all.values() if e.key != key and not e.lost]
        taken = {(e.address, m.local, m.protocol): e for e in others for m in e.mappings}
        for mapping in mappings:
            other = taken.get((address, mapping.local, mapping.protocol))
            if other is not None:
                raise SessionError(
                    f"local port {mapping.local} already gets the calls of {other.title};"
                    " choose another one with --port LOCAL:CONTAINER"
                )

    async def leave(self, request: daemon_pb2.Leave, connected: str, progress: Progress) -> daemon_pb2.LeaveResult:
        """Give containers back. Raises `SessionError`."""
        chosen = self._matching(request, connected)
        result = daemon_pb2.LeaveResult()
        for engagement in chosen:
            progress.say("leave", f"giving back {engagement.title}")
            pods = [str(pod["uid"]) for pod in engagement.status.get("pods") or []]
            try:
                await asyncio.shield(self._give_back(engagement))  # done, once asked for, even if the caller goes away
            except KubeError as error:
                raise from_kube(error, f"giving back {engagement.title}") from error
            left = engagement.describe()
            left.phase, left.reason = "Left", await wait_for_original(self._api, engagement.key, pods, progress)
            result.left.append(left)
            progress.done("leave", f"{engagement.title} is given back")
        return result

    async def _give_back(self, engagement: Engagement) -> None:
        await engagement.end()
        self._forget(engagement)

    def _matching(self, request: daemon_pb2.Leave, connected: str) -> list[Engagement]:
        kind, name = split(request.workload)
        found = [
            engagement
            for key, engagement in self._all.items()
            if key[2] == name
            and kind in ("", key[1])
            and key[0] == (request.namespace or connected)
            and request.container in ("", key[3])
        ]
        if not found:
            held = sorted(f"{e.title} (namespace {e.key[0]})" for e in self._all.values())
            raise SessionError(
                f"{request.workload} in namespace {request.namespace or connected} is not replaced by this connection;"
                f" it holds {' and '.join(held) or 'nothing'}"
            )
        if len({e.key[1] for e in found}) > 1:
            raise SessionError(f"{name!r} is the name of several workloads; say KIND/{name}")
        return found

    async def release_all(self) -> list[str]:
        """Delete every object at once; what could not be deleted is returned, as texts. Then nothing runs any more."""
        held, self._all = list(self._all.values()), {}
        outcomes = await asyncio.gather(*(e.end() for e in held), return_exceptions=True)
        left = [
            f"{e.title}: {outcome}"
            for e, outcome in zip(held, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        ]
        if self._agents is not None:
            await self._agents.close()
        await self._tasks.stop()
        return left

    def statuses(self) -> list[daemon_pb2.EngagementStatus]:
        """For `tpctl status`."""
        return [engagement.describe() for _, engagement in sorted(self._all.items())]
