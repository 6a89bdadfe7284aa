"""The engagement controller against an API server: what does not go for one goes on for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from manager.config import Config
from manager.kube import paths
from manager.kube.engagements import EngagementController
from manager.kube.owners import Owners
from manager.kube.probe import PolicyProbe
from manager.kube.tests.apiserver import FakeApiServer
from manager.registry import Agents, LiveSessions, Wakeup, Wishes
from manager.state import pods as pacing
from manager.state.injection import inject
from manager.state.model import Target
from manager.state.tests.samples import NAMESPACE, session
from manager.wish import WishMaker
from tunnel.kube.informer import Informer, key_of

CONTAINERS = [{"name": "app", "image": "app"}]


class Passes(Wakeup):
    """How long each pass wanted to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float | None] = []

    async def wait(self, timeout: float | None) -> None:
        self.pauses.append(timeout)
        await super().wait(timeout)


class World:
    """A cluster with workloads whose pods are original, engagements of one live session, and the controller."""

    def __init__(self) -> None:
        self.server = FakeApiServer()
        self.engagements: dict[str, str] = {}
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.passes = Passes()
        self.controller: EngagementController

    def engagement(self, name: str, *, workload: str = "", namespace: str = "shop", phase: str = "Pending") -> None:
        """An engagement of the deployment of its own name."""
        path = paths.engagements(namespace, name)
        self.engagements[name] = path
        spec = {
            "user": "alice",
            "session": {"namespace": NAMESPACE, "name": "s1", "uid": "s1"},
            "mode": "Replace",
            "workload": {"kind": "Deployment", "name": workload or name},
            "container": "app",
        }
        metadata = {"uid": f"uid-{name}", "namespace": namespace, "name": name}
        metadata["creationTimestamp"] = "2031-01-01T00:00:00Z"
        self.server.put(path, {"metadata": metadata, "spec": spec, "status": {"phase": phase}})

    def deployment(self, name: str, *, namespace: str = "shop", manager: str = "", **state: Any) -> dict[str, Any]:
        """A deployment with one pod, which has an agent if a manager is named; the pod."""
        spec = {"template": {"spec": {"containers": CONTAINERS}}}
        self.server.put(paths.workload(namespace, "Deployment", name), {"metadata": {"uid": f"d-{name}"}, "spec": spec})
        owner = {"apiVersion": "apps/v1", "controller": True}
        above = {**owner, "kind": "Deployment", "name": name, "uid": f"d-{name}"}
        self.server.put(
            paths.workload(namespace, "ReplicaSet", name),
            {"metadata": {"uid": f"r-{name}", "ownerReferences": [above]}},
        )
        metadata = {"uid": f"p-{name}", "namespace": namespace, "name": name}
        references = [{**owner, "kind": "ReplicaSet", "name": name, "uid": f"r-{name}"}]
        pod: dict[str, Any] = {
            "metadata": {**metadata, "ownerReferences": references},
            "spec": {"containers": CONTAINERS},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], **state},
        }
        if manager:
            wish = WishMaker(Config("pod", "uid", manager), b"root")(Target(namespace, "Deployment", name))
            pod = inject(pod, type(wish)(**{**_fields(wish), "containers": frozenset({"app"})}))
        self.pods[namespace, name] = pod
        return pod

    def manager(self, namespace: str) -> None:
        """Another traffic-manager's pod."""
        labels = {"app.kubernetes.io/name": "traffic-manager", "app.kubernetes.io/part-of": "tpctl"}
        metadata = {"uid": "m", "namespace": namespace, "name": "m", "labels": labels}
        self.pods[namespace, "m"] = {"metadata": metadata, "spec": {"containers": []}}

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.server.objects[self.engagements[name]]["status"]
        return status

    def run(self, test: Callable[[World], Awaitable[None]]) -> None:
        """Run the test beside the controller."""
        asyncio.run(self._run(test))

    async def _run(self, test: Callable[[World], Awaitable[None]]) -> None:
        async with self.server.serving() as api:
            config = Config("pod", "uid", NAMESPACE, policy="identity")
            live = LiveSessions()
            live.update({"s1": session()})
            probe = PolicyProbe(api, config, lambda: None)
            probe.watch.refused(0.0, 1.0)
            probe.works.set()
            for path in (paths.sessions(NAMESPACE), paths.engagements(NAMESPACE)):
                self.server.refuse("POST", path, 403, "the policy identity refused it")
            pods = Informer(api, paths.PODS)
            controller = EngagementController(
                api,
                config,
                pods=pods,
                owners=Owners(api),
                probe=probe,
                live=live,
                agents=Agents(),
                wishes=Wishes(),
                wish_for=WishMaker(config, b"root"),
                can_inject=lambda: True,
            )
            controller.wakeup = self.passes
            self.controller = controller
            pods.items = self.pods
            items = [self.server.objects[path] for path in self.engagements.values()]
            controller.informer.items = {key_of(item): item for item in items}
            known = asyncio.Event()
            for event in (controller.informer.synced, pods.synced, known):
                event.set()
            running = asyncio.create_task(controller.run(known), name="controller")
            try:
                async with asyncio.timeout(10):
                    await test(self)
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.wait([running])


def _fields(wish: Any) -> dict[str, Any]:
    return {name: getattr(wish, name) for name in type(wish).__slots__}


def _eviction(name: str, namespace: str = "shop") -> tuple[str, str]:
    return "POST", paths.pods(namespace, name, "eviction")


def test_an_engagement_that_cannot_be_judged_or_written_stops_no_other() -> None:
    world = World()
    for name in ("bad", "busy", "forbidden", "web"):
        world.engagement(name, workload="web/scale" if name == "bad" else "")
    world.engagement("unwritten", workload="web/scale")
    world.deployment("web")
    world.server.refuse("GET", paths.workload("shop", "Deployment", "busy"), 503)
    world.server.refuse("GET", paths.workload("shop", "Deployment", "forbidden"), 403, "deployments.apps is forbidden")
    world.server.refuse("PATCH", paths.engagements("shop", "unwritten", "status"), 422)

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("web"))
        assert world.status("bad")["reason"] == "WorkloadNotFound"
        assert world.status("forbidden")["reason"] == "WorkloadUnreadable"
        assert "deployments.apps is forbidden" in world.status("forbidden")["message"]
        assert world.status("busy") == {"phase": "Pending"}
        assert not [path for _, path in world.server.asked if "scale" in path]
        assert len(world.passes.pauses) < 10

    world.run(test)


def test_a_workload_that_cannot_be_evicted_now_stops_no_other() -> None:
    world = World()
    for name in ("first", "web"):
        world.engagement(name, phase="Accepted")
        world.deployment(name)
    world.server.refuse(*_eviction("first"), 500, "more than one PodDisruptionBudget")
    world.server.refuse("PATCH", paths.workload("shop", "Deployment", "first"), 503)

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("web"))

    world.run(test)


def test_a_pod_whose_owner_cannot_be_read_stops_only_its_namespace() -> None:
    world = World()
    for namespace in ("dark", "shop"):
        world.engagement(f"in-{namespace}", namespace=namespace, phase="Accepted")
        world.deployment(f"in-{namespace}", namespace=namespace)
    world.server.refuse("GET", paths.workload("dark", "ReplicaSet", "in-dark"), 500)

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("in-shop"))
        assert _eviction("in-dark", "dark") not in world.server.asked

    world.run(test)


def test_what_has_failed_is_not_looked_at_without_end() -> None:
    world = World()
    world.engagement("web", phase="Active")
    waiting = {"name": "traffic-agent", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
    world.deployment("web", manager=NAMESPACE, containerStatuses=[waiting], conditions=[])

    async def test(world: World) -> None:
        await world.server.until_asked("PATCH", paths.engagements("shop", "web", "status"))
        await asyncio.sleep(0.3)
        assert world.status("web")["reason"] == "Incomplete"
        assert len(world.passes.pauses) < 5
        assert all(world.passes.pauses)

    world.run(test)


def test_a_wish_that_fails_is_undone_at_once() -> None:
    world = World()
    world.engagement("web", phase="Accepted")
    waiting = {"name": "traffic-agent", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
    world.deployment("web", manager=NAMESPACE, containerStatuses=[waiting], conditions=[])

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("web"))
        assert world.status("web")["phase"] == "Failed"

    world.run(test)


def test_the_workloads_own_reason_is_told_when_no_successor_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "OVERDUE", 0.05)
    world = World()
    world.engagement("web", phase="Accepted")
    world.deployment("web")
    path = paths.workload("shop", "Deployment", "web")
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: cpu"}
    world.server.put(path, {**world.server.objects[path], "status": {"conditions": [failure]}})

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("web"))
        del world.pods["shop", "web"]
        while world.status("web")["phase"] != "Failed":
            world.passes.set()
            await asyncio.sleep(0.05)
        assert "exceeded quota: cpu" in world.status("web")["message"]

    world.run(test)


def test_a_budget_is_given_time_before_the_workload_rolls_out() -> None:
    world = World()
    world.engagement("web", phase="Accepted")
    world.deployment("web")
    pod = world.pods["shop", "web"]
    world.pods["shop", "web-2"] = {**pod, "metadata": {**pod["metadata"], "name": "web-2", "uid": "p-2"}}
    world.server.refuse(*_eviction("web"), 429, causes=[{"reason": "DisruptionBudget"}])

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("web"), 2)
        assert ("PATCH", paths.workload("shop", "Deployment", "web")) not in world.server.asked
        assert "disruption budget" in world.status("web")["message"]

    world.run(test)


@pytest.mark.parametrize("lives", [True, False])
def test_the_agents_of_another_manager_are_left_alone_while_that_lives(lives: bool) -> None:
    world = World()
    world.deployment("theirs", manager="elsewhere")
    world.deployment("ours", manager=NAMESPACE)
    if lives:
        world.manager("elsewhere")

    async def test(world: World) -> None:
        await world.server.until_asked(*_eviction("ours"))
        if not lives:
            await world.server.until_asked(*_eviction("theirs"))
        await asyncio.sleep(0.1)
        assert (_eviction("theirs") in world.server.asked) is not lives

    world.run(test)
