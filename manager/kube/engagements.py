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
from manager.kube.evict import CannotEvict, Evicted, evict
from manager.kube.fresh import Fresh
from manager.kube.owners import Owners
from manager.kube.probe import PolicyProbe
from manager.kube.statuses import grants_for, serving_pods, status_of
from manager.registry import Agents, LiveSessions, Wakeup, Wanted, Wishes
from manager.state import engagements as state
from manager.state.injection import injected_containers
from manager.state.model import Engagement, EngagementPhase, PodView, Target, engagement_of, format_time, pod_of
from manager.state.pods import Plan, Rollover
from manager.wish import WishMaker
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.informer import Informer, Key

log = logging.getLogger(__name__)

_LOOK_AGAIN = 30.0
_SOON = 0.5

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
            try:
                pause = await self._pass()
            except KubeError as error:
                log.warning("cannot reconcile the engagements: %s", error)
                pause = _SOON
            await self.wakeup.wait(pause)

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
        pause = await self._judge()
        wanted = self._publish_wishes()
        pods = await self._concerned_pods()
        for target in sorted(wanted.keys() | pods.keys() | self._rollovers.keys()):
            again = await self._advance(target, wanted.get(target, []), pods.get(target, {}))
            pause = min(pause, again)
        return pause

    # ---- acceptance

    async def _judge(self) -> float:
        engagements = self._engagements()
        if any(each.phase is EngagementPhase.PENDING for each in state.ours(engagements, self._config.namespace)):
            await self._probe.confirm()
        verdicts = state.judge(
            engagements,
            state.Claims(
                namespace=self._config.namespace,
                sessions=self._live.all(),
                policy=self._probe.watch,
                templates=await self._templates(engagements),
                wish=self._wish_for,
            ),
        )
        pause = _LOOK_AGAIN
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
            if not await self._apply(engagement, verdict):
                pause = _SOON
        return pause

    async def _templates(self, engagements: Sequence[Engagement]) -> dict[Target, Item | None]:
        """Pod templates of the workloads that pending engagements name."""
        found: dict[Target, Item | None] = {}
        for engagement in state.ours(engagements, self._config.namespace):
            target = engagement.target
            if engagement.phase is not EngagementPhase.PENDING or target in found:
                continue
            if target.kind not in paths.WORKLOADS:
                found[target] = None
                continue
            try:
                workload = await self._api.get(paths.workload(target.namespace, target.kind, target.name))
                found[target] = (workload.get("spec") or {}).get("template") or {}
            except ApiError as error:
                if not error.not_found:
                    raise
                found[target] = None
        return found

    async def _apply(self, engagement: Engagement, verdict: state.Verdict) -> bool:
        if verdict.outcome is state.Outcome.DELETE:
            return await self._delete(engagement)
        status: dict[str, Any] = {"reason": verdict.reason, "message": verdict.message}
        if verdict.outcome is state.Outcome.ACCEPT:
            now = format_time(dt.datetime.now(dt.UTC).timestamp())
            status |= {"phase": EngagementPhase.ACCEPTED.value, "acceptedAt": now, "attempts": 0, "pods": []}
        else:
            status |= {"phase": EngagementPhase.FAILED.value}
        return await self._write(engagement, status)

    async def _delete(self, engagement: Engagement) -> bool:
        try:
            await self._api.delete(
                paths.engagements(engagement.namespace, engagement.name),
                body={"preconditions": {"uid": engagement.uid}},
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                log.warning("cannot delete engagement %s/%s: %s", engagement.namespace, engagement.name, error)
                return False
        self.informer.items.pop((engagement.namespace, engagement.name), None)
        return True

    async def _write(self, engagement: Engagement, status: Mapping[str, Any]) -> bool:
        """Write a status under the resourceVersion it was decided on; False when to decide again soon."""
        try:
            item = await self._api.patch(
                paths.engagements(engagement.namespace, engagement.name, "status"),
                {"metadata": {"resourceVersion": engagement.version, "uid": engagement.uid}, "status": status},
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                log.warning("cannot write engagement %s/%s: %s", engagement.namespace, engagement.name, error)
            return False
        self._fresh.put(item)
        return True

    # ---- pods

    async def _concerned_pods(self) -> dict[Target, dict[str, Item]]:
        """Pods of engaged workloads, and pods that have an agent; by workload and uid."""
        found: dict[Target, dict[str, Item]] = {}
        concerned: set[Key] = set()
        namespaces = {target.namespace for target in self._rollovers} | self._wishes.namespaces()
        for key, item in list(self._pods.items.items()):
            if key[0] not in namespaces and not injected_containers(item):
                continue
            target = await self._owners.target_of(key[0], item)
            if target is not None:
                found.setdefault(target, {})[str(item["metadata"]["uid"])] = item
                concerned.add(key)
        self._concerned = concerned
        engaged = {target for target in found if self._wishes.of(target) or target in self._rollovers}
        return {
            target: items
            for target, items in found.items()
            if target in engaged or any(injected_containers(item) for item in items.values())
        }

    async def _advance(self, target: Target, engagements: list[Engagement], items: Mapping[str, Item]) -> float:
        """One step of one workload."""
        loop = asyncio.get_running_loop()
        pods = [pod_of(item) for item in items.values()]
        rollover = self._rollovers.setdefault(target, Rollover(self._config.agent_deadline_seconds))
        for pod in pods:
            attendance = self._agents[pod.uid]
            if attendance is not None:
                attendance.offer(grants_for(pod, engagements, self._config.lease_seconds))
        served = self._agents.uids() | {pod.uid for each in engagements for pod in each.pods}
        plan = rollover.step(frozenset(each.container for each in engagements), pods, served, loop.time())
        attempted = False
        if plan.evict is not None:
            attempted, plan = await self._evict(target, rollover, plan.evict, pods)
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
            if status and not await self._write(engagement, status):
                pause = _SOON
        if plan.failed:
            pause = 0.0  # the wish has changed: undo it
        return pause

    async def _evict(
        self, target: Target, rollover: Rollover, pod: PodView, pods: Sequence[PodView]
    ) -> tuple[bool, Plan]:
        """Try; whether anything was set going, and what to tell about it."""
        if rollover.wanted and not self._can_inject():
            return False, Plan(look_again=_SOON, waiting_for="the traffic-manager's webhook")
        wall = dt.datetime.now(dt.UTC).timestamp()
        try:
            outcome = await evict(self._api, target, pod, wall)
        except CannotEvict as error:
            return False, rollover.give_up(str(error), asyncio.get_running_loop().time())
        if outcome is Evicted.LATER:
            return False, Plan(look_again=1.0, waiting_for="the API server")
        rollover.evicted(pod, pods, asyncio.get_running_loop().time())
        rollover.rolling = rollover.rolling or outcome is Evicted.ROLLING
        return True, Plan(look_again=_SOON, waiting_for=f"the successor of pod {pod.name}")
