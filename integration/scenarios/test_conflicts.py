"""Several people and one cluster: who gets which container, and who may."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from integration.scenarios.apps import Apps
from integration.scenarios.workstation import Workstation

pytestmark = pytest.mark.cluster

PORTS = [{"name": "http", "containerPort": 8080}]


def may_connect(apps: Apps, manager: str, user: str) -> None:
    """Let the user open sessions."""
    name = f"{user}-{apps.namespace}"
    words = ["create", "rolebinding", name, "--role=traffic-manager-connect", f"--user={user}"]
    apps.cluster.kubectl(f"--namespace={manager}", *words)


def may_edit(apps: Apps, user: str) -> None:
    """Let the user edit the test's namespace."""
    apps.kubectl("create", "rolebinding", user, "--clusterrole=edit", f"--user={user}")


def test_the_first_one_keeps_the_container(
    apps: Apps, namespace: str, manager: str, workstation: Callable[..., Workstation]
) -> None:
    for user in ("alice", "bob"):
        may_connect(apps, manager, user)
        may_edit(apps, user)
    try:
        apps.deploy("first", ports=PORTS)
        apps.deploy("second", ports=PORTS)
        alice, bob = workstation(user="alice"), workstation(user="bob")
        alice.serve("alice")
        bob.serve("bob")
        for work in (alice, bob):
            work.tpctl("connect", "-n", namespace)
        alice.tpctl("replace", "first", "-c", "app")
        bob.tpctl("replace", "second", "-c", "app")
        apps.answers("http://first:8080/", "alice")
        apps.answers("http://second:8080/", "bob")

        refused = bob.tpctl("replace", "first", "-c", "app", check=False)
        assert refused.returncode == 1
        (sentence,) = [line for line in refused.stderr.splitlines() if "error:" in line]
        assert "alice" in sentence
        assert "since 20" in sentence
        assert apps.get("http://first:8080/").answer == "alice"

        alice.tpctl("leave", "first")
        bob.tpctl("replace", "first", "-c", "app")
        apps.answers("http://first:8080/", "bob")
    finally:
        for user in ("alice", "bob"):
            apps.cluster.kubectl(f"--namespace={manager}", "delete", "rolebinding", f"{user}-{namespace}")


def test_without_the_right_the_sentence_says_which_one_is_missing(
    apps: Apps, namespace: str, manager: str, workstation: Callable[..., Workstation]
) -> None:
    may_connect(apps, manager, "carol")
    try:
        apps.deploy("first", ports=PORTS)
        # To find the workload at all she may view it; only engaging it takes more.
        apps.kubectl("create", "rolebinding", "carol", "--clusterrole=view", "--user=carol")
        carol = workstation(user="carol")
        carol.tpctl("connect", "-n", namespace)
        refused = carol.tpctl("replace", "first", "-c", "app", check=False)
        assert refused.returncode == 1
        (sentence,) = [line for line in refused.stderr.splitlines() if "error:" in line]
        for word in ("carol", "create", "engagements", namespace):
            assert word in sentence
        assert apps.containers("first") == ["app", "side"]
    finally:
        apps.cluster.kubectl(f"--namespace={manager}", "delete", "rolebinding", f"carol-{namespace}")


def test_nobody_connects_without_the_right_to_open_sessions(
    apps: Apps, namespace: str, workstation: Callable[..., Workstation]
) -> None:
    dave = workstation(user="dave")
    refused = dave.tpctl("connect", "-n", namespace, "--manager-namespace", "tpctl-system", check=False)
    assert refused.returncode == 1
    (sentence,) = [line for line in refused.stderr.splitlines() if "error:" in line]
    for word in ("dave", "tpctl-system"):
        assert word in sentence
