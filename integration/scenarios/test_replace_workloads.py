"""Replacing in workloads of several pods, under a disruption budget, and where pods must be restricted."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.cluster.services import wait_for_services
from integration.scenarios.apps import LAPTOP, ORIGINAL, Apps, serving
from integration.scenarios.user import User, eventually
from integration.scenarios.workloads import get

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAME = "several"
UNREADY = 5.0
"""Seconds until the cluster knows that agents serve nobody any more, on a busy machine."""
_CALLS = """
import json, sys, time, urllib.request
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=2) as response:
            print(json.load(response)["answer"])
    except OSError:
        print()
    time.sleep(0.05)
"""
URL = f"http://{NAME}:8080/"
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the `restricted` level of the Pod Security Standards asks of a container."""


def workload(cluster: Cluster, kind: str, replicas: int, slow: int) -> list[dict[str, Any]]:
    """The workload `several` of one container, ready after `slow` seconds, its service, and the pod `caller`; all
    restricted."""
    labels = {"app": NAME}
    image = {"image": cluster.image("test"), "imagePullPolicy": "IfNotPresent", "securityContext": RESTRICTED}
    container = {
        "name": "app",
        **image,
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 1,
            "initialDelaySeconds": slow,
        },
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        },
    }
    if kind == "StatefulSet":
        spec["serviceName"] = NAME
    caller = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "caller", **image}]}
    ports = [{"name": "http", "port": 8080}]
    return [
        {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": NAME}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME},
            "spec": {"selector": labels, "ports": ports},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "caller"}, "spec": caller},
    ]


def deploy(apps: Apps, kind: str, replicas: int, budget: int | None = None, slow: int = 0) -> None:
    """Make it, and a disruption budget that keeps so many pods available; until all are ready."""
    objects = workload(apps.cluster, kind, replicas, slow)
    if budget is not None:
        spec = {"minAvailable": budget, "selector": {"matchLabels": {"app": NAME}}}
        metadata = {"name": NAME}
        objects.append({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec})
    apps.apply(*objects)
    apps.kubectl("rollout", "status", f"{kind.lower()}/{NAME}", "--timeout=90s")
    apps.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=30s")
    wait_for_services(apps.cluster, apps.namespace, [NAME])


def running(apps: Apps) -> list[str]:
    """The containers that run in pods of it, also in those on their way out."""
    pods = get(apps.cluster, "pods", "-n", apps.namespace, "-l", f"app={NAME}")["items"]
    statuses = [each for pod in pods for each in pod["status"].get("containerStatuses", ())]
    return [each["name"] for each in statuses if "running" in each["state"]]


def all_answer(apps: Apps, answer: str) -> bool:
    """Whether a call answers so whichever pod it meets: of ten hardly all meet the same."""
    return all(apps.get(URL).answer == answer for _ in range(10))


@contextmanager
def never_without_an_endpoint(apps: Apps, tmp_path: Path) -> Iterator[None]:
    """The service has an endpoint that is ready all the time."""
    seen = tmp_path / "endpoints"
    path = f"/apis/discovery.k8s.io/v1/namespaces/{apps.namespace}/endpointslices"
    query = f"watch=true&labelSelector=kubernetes.io/service-name%3D{NAME}"
    program = [apps.cluster.kubectl_program(), f"--kubeconfig={apps.cluster.admin_kubeconfig}"]
    with seen.open("w") as out, subprocess.Popen([*program, "get", "--raw", f"{path}?{query}"], stdout=out) as watch:
        try:
            eventually("the first look", seen.read_text)
            yield
        finally:
            watch.kill()
    changes = [json.loads(line)["object"]["endpoints"] or [] for line in seen.read_text().splitlines()]
    ready = [sum(each["conditions"]["ready"] for each in endpoints) for endpoints in changes]
    assert len(ready) > 1, "nothing changed"
    assert all(ready), f"how many were ready: {ready}"


@contextmanager
def called(apps: Apps) -> Iterator[list[str]]:
    """Calls from another pod, time and again: what each was answered, nothing if it was not."""
    argv = [apps.cluster.kubectl_program(), f"--kubeconfig={apps.cluster.admin_kubeconfig}", "-n", apps.namespace]
    argv += ["exec", "caller", "--", "python3", "-u", "-c", _CALLS, URL]
    answers: list[str] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as calling:
        assert calling.stdout is not None
        lines = calling.stdout
        reading = threading.Thread(target=lambda: answers.extend(line.strip() for line in lines), name="answers")
        reading.start()
        try:
            yield answers
        finally:
            calling.kill()
            reading.join()


def replace_and_leave(apps: Apps, user: User, tmp_path: Path, kind: str, replicas: int) -> None:
    """The whole story. While several pods are replaced the service always has one that is ready. On leave it leads to
    originals alone, as soon as there is one."""
    user.connect(apps.namespace)
    with never_without_an_endpoint(apps, tmp_path) if replicas > 1 else nullcontext():
        user.tpctl("replace", NAME, timeout=120)
        assert "app" not in running(apps)
        eventually("all to be replaced", lambda: running(apps) == ["traffic-agent"] * replicas, timeout=60)
        eventually("all to serve", lambda: len(engagement(user)["pods"]) == replicas)
        eventually("all to be ready", lambda: endpoints(apps) == replicas, timeout=30)
    with serving(user):
        apps.answers(URL, LAPTOP)
        assert all_answer(apps, LAPTOP)
    before = generation(apps, kind)
    user.tpctl("leave", NAME, timeout=120)
    time.sleep(UNREADY)
    with called(apps) as answers:
        eventually("the originals", lambda: running(apps) == ["app"] * replicas, timeout=60)
        eventually("all of them to be ready", lambda: endpoints(apps) == replicas, timeout=30)
        eventually("an answer", lambda: ORIGINAL in answers)
    since = answers[answers.index(ORIGINAL) :]
    assert set(since) == {ORIGINAL}, since
    assert generation(apps, kind) == before, "it rolled out"
    assert all_answer(apps, ORIGINAL)
    user.tpctl("quit")


def generation(apps: Apps, kind: str) -> int:
    """Counts the changes of its specification, a rollout's among them."""
    number: int = get(apps.cluster, kind, NAME, "-n", apps.namespace)["metadata"]["generation"]
    return number


def engagement(user: User) -> Any:
    """The one there is."""
    (found,) = user.json("status")["connections"][0]["engagements"]
    return found


def endpoints(apps: Apps) -> int:
    """How many of the service are ready."""
    found = json.loads(apps.kubectl("get", "endpointslices", f"-l=kubernetes.io/service-name={NAME}", "-o", "json"))
    return sum(each["conditions"]["ready"] for item in found["items"] for each in item["endpoints"] or ())


@dataclass(frozen=True)
class Story:
    """A workload to be replaced and given back."""

    kind: str
    replicas: int
    budget: int | None = None
    slow: int = 0
    restricted: bool = False

    def tell(self, apps: Apps, user: User, tmp_path: Path) -> None:
        """From deploying it to the originals' answers."""
        if self.restricted:
            apps.cluster.kubectl("label", "namespace", apps.namespace, "pod-security.kubernetes.io/enforce=restricted")
        deploy(apps, self.kind, self.replicas, self.budget, self.slow)
        replace_and_leave(apps, user, tmp_path, self.kind, self.replicas)


STORIES = {
    "one-at-a-time": Story("Deployment", 2, budget=1),
    # Where the budget lets no pod be evicted, the workload's own rollout replaces them.
    "no-eviction": Story("Deployment", 2, budget=2),
    "no-eviction-in-order": Story("StatefulSet", 2, budget=2),
    # Ready so late that for a while there is one original, and one agent that was left.
    "slow-in-order": Story("StatefulSet", 2, slow=round(UNREADY)),
    "restricted": Story("Deployment", 1, restricted=True),
}


@pytest.fixture(scope="module")
def told(cluster: Cluster, manager: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """All of them at the same time: they mostly wait for pods."""
    with ExitStack() as stack, ThreadPoolExecutor(len(STORIES)) as pool:
        begun: dict[str, Future[None]] = {}
        for name, story in STORIES.items():
            namespace = f"{name}-{secrets.token_hex(2)}"
            cluster.kubectl("create", "namespace", namespace)
            stack.callback(cluster.kubectl, "delete", "namespace", namespace, "--wait=false")
            laptop = Laptop.create(cluster, f"several-{secrets.token_hex(3)}")
            stack.callback(laptop.delete)
            begun[name] = pool.submit(story.tell, Apps(cluster, namespace), User(laptop), tmp_path_factory.mktemp(name))
        wait(begun.values())
        yield begun


@pytest.mark.parametrize("name", STORIES)
def test_several_pods_are_replaced_and_given_back(told: dict[str, Future[None]], name: str) -> None:
    told[name].result()
