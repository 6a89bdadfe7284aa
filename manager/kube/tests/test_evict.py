"""Sending pods away against an API server, above all where a disruption budget says no."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager.kube import paths
from manager.kube.evict import RESTARTED, CannotEvict, Evicted, evict, replica_failure
from manager.kube.tests.apiserver import FakeApiServer
from manager.state.model import PodView, Target, format_time
from manager.state.tests.samples import pod

EVICTION = ("POST", paths.pods("shop", "web-1", "eviction"))
POD = pod("web-1", created=1000.0)


def budget(**spec: Any) -> FakeApiServer:
    """Workloads of three kinds whose pod a budget keeps."""
    server = FakeApiServer()
    server.refuse(*EVICTION, 429, causes=[{"reason": "DisruptionBudget"}])
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        server.put(paths.workload("shop", kind, "web"), {"metadata": {}, "spec": {"template": {}, **spec}})
    return server


def outcome(
    server: FakeApiServer, kind: str = "Deployment", *, patient: bool = False, idle: bool = False, of: PodView = POD
) -> Evicted:
    async def run() -> Evicted:
        async with server.serving() as api:
            return await evict(api, Target("shop", kind, "web"), of, 2000.0, patient=patient, idle=idle)

    return asyncio.run(run())


def restarted(server: FakeApiServer, kind: str = "Deployment") -> str | None:
    template = server.objects[paths.workload("shop", kind, "web")]["spec"]["template"]
    value: str | None = template.get("metadata", {}).get("annotations", {}).get(RESTARTED)
    return value


def test_a_pod_goes() -> None:
    assert outcome(FakeApiServer()) is Evicted.GOING


def test_a_budget_may_say_yes_later() -> None:
    server = budget()
    assert outcome(server, patient=True) is Evicted.HELD
    assert restarted(server) is None


def test_two_budgets_never_do() -> None:
    server = budget()
    server.refuse(*EVICTION, 500, "This pod has more than one PodDisruptionBudget")
    assert outcome(server, patient=True) is Evicted.ROLLING
    assert restarted(server) == format_time(2000)


def test_a_pod_that_serves_nobody_is_kept_by_no_budget() -> None:
    gone = pod("web-1", ready=False)
    path = paths.pods("shop", "web-1")
    for status, message in ((429, "no"), (500, "This pod has more than one PodDisruptionBudget")):
        server = budget()
        server.refuse(*EVICTION, status, message, causes=[{"reason": "DisruptionBudget"}])
        assert outcome(server, patient=True, idle=True) is Evicted.HELD  # until it is not ready
        assert ("DELETE", path) not in server.asked
        assert outcome(server, patient=True, idle=True, of=gone) is Evicted.GOING
        assert ("DELETE", path) in server.asked
        assert restarted(server) is None
        assert outcome(server, of=gone) is Evicted.ROLLING
    server = FakeApiServer()
    assert outcome(server, idle=True, of=gone) is Evicted.GOING
    assert ("DELETE", path) not in server.asked
    server = budget()
    server.refuse("DELETE", path, 403, "pods is forbidden")
    with pytest.raises(CannotEvict, match="forbidden"):
        outcome(server, idle=True, of=gone)


def test_a_rollout_that_will_replace_the_pod_is_not_begun_anew() -> None:
    for before, after in ((999.0, 2000.0), (1000.0, 2000.0), (1001.0, 1001.0)):
        server = budget(template={"metadata": {"annotations": {RESTARTED: format_time(before)}}})
        assert outcome(server) is Evicted.ROLLING
        assert restarted(server) == format_time(after)


@pytest.mark.parametrize(
    ("kind", "spec", "why"),
    [
        ("Deployment", {"paused": True}, "paused"),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ("DaemonSet", {"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ("StatefulSet", {"updateStrategy": {"rollingUpdate": {"partition": 1}}}, "partition"),
    ],
)
def test_a_rollout_that_would_stop_half_way_is_not_begun(kind: str, spec: dict[str, Any], why: str) -> None:
    server = budget(**spec)
    with pytest.raises(CannotEvict, match=why):
        outcome(server, kind)
    assert restarted(server, kind) is None


def test_a_partition_of_nothing_stops_nothing() -> None:
    server = budget(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    assert outcome(server, "StatefulSet") is Evicted.ROLLING


def test_only_a_failure_that_lasts_is_the_reason() -> None:
    async def run(kind: str, *conditions: dict[str, str]) -> str:
        server = FakeApiServer()
        server.put(paths.workload("shop", kind, "web"), {"metadata": {}, "status": {"conditions": conditions}})
        async with server.serving() as api:
            return await replica_failure(api, Target("shop", kind, "web"))

    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    assert asyncio.run(run("Deployment", {"type": "Available", "status": "False"}, failure)) == "exceeded quota"
    assert asyncio.run(run("Deployment", {**failure, "status": "False"})) == ""
    assert asyncio.run(run("StatefulSet", failure)) == ""
