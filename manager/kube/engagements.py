"""Accepts engagements, and brings the pods of engaged workloads to where they belong.

Level-triggered: each pass looks at everything, decides with `manager.state`, and writes. Acceptance is recorded in the
status before anything follows from it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from manager.config import Config
from manager.kube import paths
from manager.kube.elsewhere import Elsewhere
from manager.kube.evict import CannotEvict, Evicted, evict, replica_failure
from manager.kube.fresh import Fresh
from manager.kube.owners import Owners
from manager.kube.probe import PolicyProbe
from manager.kube.statuses import grants_for, serving_pods, status_of
from manager.registry import Agents, LiveSessions, Wakeup, Wanted, Wishes
from manager.state import engagements as state
from manager.state.injection import agent_config, injected_containers
from manager.state.model import (
    Engagement,
    EngagementPhase,
    PodView,
    Target,
    engagement_of,
    format_time,
    is_name,
    pod_of,
)
from manager.state.pods import Plan, Rollover
from manager.wish import WishMaker
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.informer import Informer, Key

log = logging.getLogger(__name__)

_LOOK_AGAIN = 30.0
_SOON = 0.5
_RETRY = 5.0
"""Seconds before what the API server did not do for one workload or engagement is tried again; the others go on."""
_IN_PLACE = frozenset({"StatefulSet", "DaemonSet"})

Item = Mapping[str, Any]


class EngagementController:
    """One task; wakes on engagements, on pods that may matter, on sessions and agents."""

    def __init__(
        self,
        api: Api,
        config: Config,
        *,
        pods: Informer,
        owners: Owners,
        probe: PolicyProbe,
        live: LiveSessions,
        agents: Agents,
        wishes: Wishes,
        wish_for: WishMaker,
        can_inject: Callable[[], bool],
    ) -> None:
        self._api = api
        self._config = config
        self._pods = pods
        self._owners = owners
        self._probe = probe
        self._live = live
        self._agents = agents
        self._wishes = wishes
        self._wish_for = wish_for
        self._can_inject = can_inject
        """Whether the webhook is within the API server's reach: an eviction before is in vain."""
        self.wakeup = Wakeup()
        self.informer = Informer(api, paths.ENGAGEMENTS, self.wakeup.set)
        self._fresh = Fresh(self.informer)
        self._elsewhere = Elsewhere(config.namespace)
        self._rollovers: dict[Target, Rollover] = {}
        self._concerned: set[Key] = set()
        """Pods of the last pass; their going matters too."""
        agents.on_change.append(self.wakeup.set)

    def pod_changed(self, key: Key, item: Item | None) -> None:
        """For the pods' informer."""
        if key in self._concerned or (item is not None and self._matters(item)):
            self.wakeup.set()

    def _matters(self, item: Item) -> bool:
        namespace = item["metadata"].get("namespace")
        return namespace in self._wishes.namespaces() or bool(injected_containers(item))

    async def run(self, sessions_known: asyncio.Event) -> None:
        """Until cancelled. `sessions_known`: set when the live sessions have been published once."""
        await self.informer.synced.wait()
        self._publish_wishes()
        await self._pods.synced.wait()
        await sessions_known.wait()
        while True:
            await self.wakeup.wait(await self._pass())

    def _engagements(self) -> list[Engagement]:
        return [engagement_of(item) for item in self._fresh.items()]

    def _publish_wishes(self) -> dict[Target, list[Engagement]]:
        wanted = state.wishes(self._engagements(), self._config.namespace)
        self._wishes.update(
            {
                target: Wanted(
                    frozenset(each.container for each in engagements),
                    frozenset(port for each in engagements for port, _ in each.ports),
                )
                for target, engagements in wanted.items()
            }
        )
        return wanted

    async def _pass(self) -> float:
        """Once through everything; seconds after which to look again even if nothing happens."""
        elsewhere = self._elsewhere.look(self._pods.items.values(), asyncio.get_running_loop().time())
        pause = await self._judge(elsewhere)
        wanted = self._publish_wishes()
        pods, unknown = await self._concerned_pods(elsewhere)
        for target in sorted(wanted.keys() | pods.keys() | self._rollovers.keys()):
            again = _RETRY
            if target.namespace not in unknown:
                try:
                    again = await self._advance(target, wanted.get(target, []), pods.get(target, {}))
                except KubeError as error:
                    log.warning("%s/%s in %s waits: %s", target.kind.lower(), target.name, target.namespace, error)
            pause = min(pause, again)
        return pause

    # ---- acceptance

    async def _judge(self, elsewhere: frozenset[str]) -> float:
        engagements = self._engagements()
        if any(each.phase is EngagementPhase.PENDING for each in state.ours(engagements, self._config.namespace)):
            await self._probe.confirm()
        templates, unreadable, pause = await self._templates(engagements)
        verdicts = state.judge(
            engagements,
            state.Claims(
                namespace=self._config.namespace,
                sessions=self._live.all(),
                policy=self._probe.watch,
                templates=templates,
                unreadable=unreadable,
                untouched=frozenset({self._config.namespace, *self._config.untouched_namespaces}),
                elsewhere=elsewhere,
                wish=self._wish_for,
            ),
        )
        for engagement in engagements:
            verdict = verdicts.get(engagement.uid)
            if verdict is None:
                continue
            log.info(
                "engagement %s/%s of %s: %s %s",
                engagement.namespace,
                engagement.name,
                engagement.user,
                verdict.outcome.name.lower(),
                verdict.reason,
            )
            pause = min(pause, await self._apply(engagement, verdict))
        return pause

    async def _templates(
        self, engagements: Sequence[Engagement]
    ) -> tuple[dict[Target, Item | None], dict[Target, str], float]:
        """Pod templates of the workloads that pending engagements name; which may not be read, and why; when again."""
        found: dict[Target, Item | None] = {}
        unreadable: dict[Target, str] = {}
        pause = _LOOK_AGAIN
        pending = [each for each in engagements if each.phase is EngagementPhase.PENDING]
        for target in sorted({each.target for each in state.ours(pending, self._config.namespace)}):
            if target.kind not in paths.WORKLOADS or not is_name(target.name):
                found[target] = None
                continue
            try:
                workload = await self._api.get(paths.workload(target.namespace, target.kind, target.name))
                found[target] = (workload.get("spec") or {}).get("template") or {}
            except KubeError as error:
                if isinstance(error, ApiError) and error.not_found:
                    found[target] = None
                elif isinstance(error, ApiError) and not error.retryable:
                    unreadable[target] = str(error)
                else:
                    log.warning("cannot read %s/%s in %s: %s", target.kind, target.name, target.namespace, error)
                    pause = _RETRY
        return found, unreadable, pause

    async def _apply(self, engagement: Engagement, verdict: state.Verdict) -> float:
        if verdict.outcome is state.Outcome.DELETE:
            return await self._delete(engagement)
        status: dict[str, Any] = {"reason": verdict.reason, "message": verdict.message}
        if verdict.outcome is state.Outcome.ACCEPT:
            now = format_time(dt.datetime.now(dt.UTC).timestamp())
            status |= {"phase": EngagementPhase.ACCEPTED.value, "acceptedAt": now, "attempts": 0, "pods": []}
        else:
            status |= {"phase": EngagementPhase.FAILED.value}
        return await self._write(engagement, status)

    async def _delete(self, engagement: Engagement) -> float:
        try:
            await self._api.delete(
                paths.engagements(engagement.namespace, engagement.name),
                body={"preconditions": {"uid": engagement.uid}},
            )
        except KubeError as error:
            if not _is_old_news(error):
                log.warning("cannot delete engagement %s/%s: %s", engagement.namespace, engagement.name, error)
                return _RETRY
        self.informer.items.pop((engagement.namespace, engagement.name), None)
        return _LOOK_AGAIN

    async def _write(self, engagement: Engagement, status: Mapping[str, Any]) -> float:
        """Write a status under the resourceVersion it was decided on; seconds after which to look again."""
        try:
            item = await self._api.patch(
                paths.engagements(engagement.namespace, engagement.name, "status"),
                {"metadata": {"resourceVersion": engagement.version, "uid": engagement.uid}, "status": status},
            )
        except KubeError as error:
            if _is_old_news(error):
                return _SOON
            log.warning("cannot write engagement %s/%s: %s", engagement.namespace, engagement.name, error)
            return _RETRY
        self._fresh.put(item)
        if status["phase"] != engagement.phase:
            self.wakeup.set()  # so has what is wished for, maybe: undo what has failed
        return _LOOK_AGAIN

    # ---- pods

    async def _concerned_pods(self, elsewhere: frozenset[str]) -> tuple[dict[Target, dict[str, Item]], set[str]]:
        """Pods of engaged workloads, and pods that have an agent, by workload and uid; and the namespaces of which
        not all pods could be looked at. Pods that have another manager's agent are that manager's."""
        unknown: set[str] = set()
        found: dict[Target, dict[str, Item]] = {}
        concerned: set[Key] = set()
        namespaces = {target.namespace for target in self._rollovers} | self._wishes.namespaces()
        for key, item in list(self._pods.items.items()):
            agent = agent_config(item)
            if (agent is None and key[0] not in namespaces) or key[0] in unknown:
                continue
            if agent is not None and agent.manager.namespace in elsewhere:
                continue
            try:
                target = await self._owners.target_of(key[0], item)
            except KubeError as error:
                log.warning("cannot find the workload of pod %s/%s: %s", *key, error)
                unknown.add(key[0])
                continue
            if target is not None:
                found.setdefault(target, {})[str(item["metadata"]["uid"])] = item
                concerned.add(key)
        self._concerned = concerned
        engaged = {target for target in found if self._wishes.of(target) or target in self._rollovers}
        return {
            target: items
            for target, items in found.items()
            if target in engaged or any(injected_containers(item) for item in items.values())
        }, unknown

    async def _advance(self, target: Target, engagements: list[Engagement], items: Mapping[str, Item]) -> float:
        """One step of one workload."""
        loop = asyncio.get_running_loop()
        pods = [pod_of(item) for item in items.values()]
        rollover = self._rollovers.setdefault(
            target, Rollover(self._config.agent_deadline_seconds, in_place=target.kind in _IN_PLACE)
        )
        for pod in pods:
            attendance = self._agents[pod.uid]
            if attendance is not None:
                attendance.offer(grants_for(pod, engagements, self._config.lease_seconds))
        served = self._agents.uids() | {pod.uid for each in engagements for pod in each.pods}
        plan = rollover.step(frozenset(each.container for each in engagements), pods, served, loop.time())
        attempted = False
        if plan.evict is not None:
            attempted, plan = await self._evict(target, rollover, plan.evict, pods)
        if plan.overdue and (why := await replica_failure(self._api, target)):
            plan = rollover.give_up(f"{plan.waiting_for} was not created: {why}", loop.time())
        if not engagements:
            if plan.failed:
                log.warning("%s/%s keeps a traffic-agent: %s", target.kind.lower(), target.name, plan.failed)
            if plan.fulfilled:
                del self._rollovers[target]
                return _LOOK_AGAIN
            return plan.look_again or _LOOK_AGAIN
        pause = plan.look_again or _LOOK_AGAIN
        for engagement in engagements:
            serving = serving_pods(engagement, pods, items, self._agents)
            status = status_of(engagement, plan, serving, attempted=attempted)
            if status:
                pause = min(pause, await self._write(engagement, status))
        return pause

    async def _evict(
        self, target: Target, rollover: Rollover, pod: PodView, pods: Sequence[PodView]
    ) -> tuple[bool, Plan]:
        """Try; whether anything was set going, and what to tell about it."""
        if rollover.wanted and not self._can_inject():
            return False, Plan(look_again=_SOON, waiting_for="the traffic-manager's webhook")
        now = asyncio.get_running_loop().time()
        wall = dt.datetime.now(dt.UTC).timestamp()
        try:
            patient, idle = rollover.patient(pods, now), not rollover.wanted
            outcome = await evict(self._api, target, pod, wall, patient=patient, idle=idle)
        except CannotEvict as error:
            return False, rollover.give_up(str(error), now)
        if outcome is Evicted.LATER:
            return False, Plan(look_again=1.0, waiting_for="the API server")
        if outcome is Evicted.HELD:
            rollover.held(now)
            return False, Plan(look_again=1.0, waiting_for=f"the disruption budget of pod {pod.name}")
        rollover.evicted(pod, pods, now, rolling=outcome is Evicted.ROLLING)
        return True, Plan(look_again=_SOON, waiting_for=f"the successor of pod {pod.name}")


def _is_old_news(error: KubeError) -> bool:
    """Whether the object is another by now, or gone: the watch brings what is true."""
    return isinstance(error, ApiError) and (error.not_found or error.conflict)
