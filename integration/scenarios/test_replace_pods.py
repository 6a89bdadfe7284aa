"""Workloads of several pods: one goes at a time, also where a disruption budget watches or a pod ends slowly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from integration.scenarios.apps import Apps
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import eventually
from integration.scenarios.workloads import get

pytestmark = pytest.mark.cluster

PORT = {"name": "http", "containerPort": 8080}
READY = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "initialDelaySeconds": 2}


def _workload(apps: Apps, kind: str, replicas: int, grace: int, **container: Any) -> dict[str, Any]:
    app = {"name": "app", "image": apps.cluster.image("test"), "imagePullPolicy": "IfNotPresent", "ports": [PORT]}
    spec = {"terminationGracePeriodSeconds": grace, "containers": [{**app, **container}]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec},
            **({"serviceName": "web"} if kind == "StatefulSet" else {}),
        },
    }


def _pods(apps: Apps) -> list[Any]:
    found: list[Any] = get(apps.cluster, "pods", "-n", apps.namespace, "-l", "app=web")["items"]
    return found


def _ready(apps: Apps) -> int:
    """Pods that serve."""
    return sum(
        condition["status"] == "True"
        for pod in _pods(apps)
        if "deletionTimestamp" not in pod["metadata"]
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "Ready"
    )


def _containers(apps: Apps) -> list[str]:
    """The first container of each pod that stays."""
    return [pod["spec"]["containers"][0]["name"] for pod in _pods(apps) if "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def _watching(apps: Apps) -> Iterator[list[int]]:
    """How many pods served, time and again."""
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.3):
            seen.append(_ready(apps))

    watcher = threading.Thread(target=look, name="watching")
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_a_budget_is_kept_and_the_workload_does_not_roll_out(apps: Apps, namespace: str, people: UserFactory) -> None:
    budget = {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": 1}
    apps.apply(
        _workload(apps, "Deployment", 3, 1, readinessProbe=READY),
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": budget},
    )
    apps.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    work = people()
    work.connect(namespace)
    with _watching(apps) as seen:
        work.tpctl("replace", "web", timeout=90)
        assert _containers(apps) == ["traffic-agent"] * 3
    assert min(seen) >= 2
    work.tpctl("leave", "web")  # agents that serve nobody are not ready, and no budget keeps them
    eventually("the originals", lambda: _containers(apps) == ["app"] * 3 and _ready(apps) == 3, timeout=60)
    assert get(apps.cluster, "deployment", "web", "-n", namespace)["metadata"]["generation"] == 1


def test_pods_that_end_slowly_go_one_at_a_time_whatever_is_wished_meanwhile(
    apps: Apps, namespace: str, people: UserFactory
) -> None:
    # `sleep` as the first process of a container does not heed SIGTERM: it ends with its grace period.
    apps.apply(_workload(apps, "StatefulSet", 2, 6, command=["sleep", "infinity"]))
    apps.kubectl("rollout", "status", "statefulset/web", "--timeout=60s")
    work = people()
    work.connect(namespace)
    replacing = ("tpctl", "replace", "web", "--no-ports")
    with _watching(apps) as seen:
        with work.laptop.popen(replacing) as first:
            eventually("the first pod to go", lambda: any("deletionTimestamp" in p["metadata"] for p in _pods(apps)))
            first.terminate()
            first.wait(20)
        work.ok(*replacing, timeout=90)
        assert _containers(apps) == ["traffic-agent"] * 2
    assert min(seen) >= 1
    work.tpctl("leave", "web")
    eventually("the originals", lambda: _containers(apps) == ["app"] * 2 and _ready(apps) == 2, timeout=60)
