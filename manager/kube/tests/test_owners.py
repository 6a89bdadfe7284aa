"""To whom a pod belongs, against an API server; ownerReferences may say anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from manager.kube import paths
from manager.kube.owners import Owners
from manager.kube.tests.apiserver import FakeApiServer
from manager.state.model import Target

MINE, THEIRS = "mine", "theirs"


def reference(kind: str, name: str, uid: str, api: str = "apps/v1") -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True}


def owned(*references: dict[str, Any], uid: str = "pod") -> dict[str, Any]:
    return {"metadata": {"uid": uid, "ownerReferences": list(references)}}


def cluster() -> FakeApiServer:
    """Deployment web with ReplicaSet web-1 in two namespaces."""
    server = FakeApiServer()
    for namespace in (MINE, THEIRS):
        server.put(paths.workload(namespace, "Deployment", "web"), owned(uid=f"{namespace}-web"))
        server.put(
            paths.workload(namespace, "ReplicaSet", "web-1"),
            owned(reference("Deployment", "web", f"{namespace}-web"), uid=f"{namespace}-web-1"),
        )
    return server


def targets(server: FakeApiServer, pods: Sequence[tuple[str, dict[str, Any]]]) -> list[Target | None]:
    """The workloads of these pods, asked for one after the other."""

    async def run() -> list[Target | None]:
        async with server.serving() as api:
            owners = Owners(api)
            return [await owners.target_of(namespace, pod) for namespace, pod in pods]

    return asyncio.run(run())


def test_a_deployments_pod_is_found_and_remembered() -> None:
    server, pod = cluster(), owned(reference("ReplicaSet", "web-1", "mine-web-1"))
    assert targets(server, [(MINE, pod)] * 3) == [Target(MINE, "Deployment", "web")] * 3
    assert len(server.asked) == 2


def test_a_statefulsets_pod_names_it() -> None:
    assert targets(cluster(), [(MINE, owned(reference("StatefulSet", "db", "u")))]) == [
        Target(MINE, "StatefulSet", "db")
    ]


def test_a_false_reference_does_not_change_whose_another_namespaces_pods_are() -> None:
    false = owned(reference("ReplicaSet", "web-1", "theirs-web-1"))
    unknown = owned(reference("ReplicaSet", "none", "theirs-web-1"))
    true = owned(reference("ReplicaSet", "web-1", "theirs-web-1"))
    found = targets(cluster(), [(MINE, false), (MINE, unknown), (THEIRS, true), (MINE, false)])
    assert found == [None, None, Target(THEIRS, "Deployment", "web"), None]


def test_a_replica_set_that_is_seen_later_is_found_then() -> None:
    server = cluster()
    path = paths.workload(MINE, "ReplicaSet", "web-2")
    pod = owned(reference("ReplicaSet", "web-2", "new"))

    async def run() -> list[Target | None]:
        async with server.serving() as api:
            owners = Owners(api)
            before = await owners.target_of(MINE, pod)
            server.put(path, owned(reference("Deployment", "web", "mine-web"), uid="new"))
            return [before, await owners.target_of(MINE, pod)]

    assert asyncio.run(run()) == [None, Target(MINE, "Deployment", "web")]


def test_a_replica_set_of_no_deployment_is_a_workload_itself() -> None:
    server = cluster()
    rollout = reference("Deployment", "web", "mine-web", api="argoproj.io/v1alpha1")
    for name, owner in (("own", ()), ("argo", (rollout,))):
        server.put(paths.workload(MINE, "ReplicaSet", name), owned(*owner, uid=name))
    pods = [(MINE, owned(reference("ReplicaSet", name, name))) for name in ("own", "argo")]
    assert targets(server, pods) == [Target(MINE, "ReplicaSet", name) for name in ("own", "argo")]


def test_a_replica_set_cannot_join_a_deployment_by_itself() -> None:
    server = cluster()
    server.put(
        paths.workload(MINE, "ReplicaSet", "false"), owned(reference("Deployment", "web", "guessed"), uid="false")
    )
    assert targets(server, [(MINE, owned(reference("ReplicaSet", "false", "false")))]) == [None]


@pytest.mark.parametrize("name", ["..", "web-1?x", "web/scale", "", "Web"])
def test_what_is_no_name_gets_into_no_path(name: str) -> None:
    server = cluster()
    assert targets(server, [(MINE, owned(reference("ReplicaSet", name, "x")))]) == [None]
    assert server.asked == []


def test_only_workloads_of_kubernetes_count() -> None:
    pod = owned(reference("StatefulSet", "db", "x", api="apps.kruise.io/v1beta1"))
    assert targets(cluster(), [(MINE, pod), (MINE, owned(reference("Job", "j", "x"))), (MINE, owned())]) == [None] * 3
