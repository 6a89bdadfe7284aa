"""Several people and one cluster: who gets which container, and who may."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from integration.scenarios.apps import LAPTOP, Apps, serving
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import eventually

pytestmark = pytest.mark.cluster

PORTS = [{"name": "http", "containerPort": 8080}]


@contextmanager
def may_connect(apps: Apps, manager: str, *users: str) -> Iterator[None]:
    """Let the users open sessions."""
    name = f"connect-{apps.namespace}"
    subjects = [f"--user={user}" for user in users]
    words = ["create", "rolebinding", name, "--role=traffic-manager-connect", *subjects]
    apps.cluster.kubectl(f"--namespace={manager}", *words)
    try:
        yield
    finally:
        apps.cluster.kubectl(f"--namespace={manager}", "delete", "rolebinding", name)


def may(apps: Apps, role: str, *users: str) -> None:
    """Give the users this ClusterRole in the test's namespace."""
    apps.kubectl("create", "rolebinding", role, f"--clusterrole={role}", *(f"--user={user}" for user in users))


def test_the_first_one_keeps_the_container(apps: Apps, namespace: str, manager: str, people: UserFactory) -> None:
    may(apps, "edit", "alice", "bob")
    apps.deploy("first", ports=PORTS)
    apps.deploy("second", ports=PORTS)
    alice, bob = people(user="alice"), people(user="bob")
    with may_connect(apps, manager, "alice", "bob"), serving(alice, "alice"), serving(bob, "bob"):
        for each in (alice, bob):
            each.connect(namespace)
        alice.tpctl("replace", "first", "-c", "app")
        bob.tpctl("replace", "second", "-c", "app")
        apps.answers("http://first:8080/", "alice")
        apps.answers("http://second:8080/", "bob")

        bob.tpctl("leave", "second")
        sentence = bob.refused("replace", "first", "-c", "app")
        assert "alice" in sentence
        assert "since 20" in sentence
        assert apps.get("http://first:8080/").answer == "alice"

        alice.tpctl("leave", "first")
        bob.tpctl("replace", "first", "-c", "app")
        apps.answers("http://first:8080/", "bob")
        for each in (alice, bob):
            each.tpctl("quit")


def test_who_comes_back_after_a_crash_does_not_wait_for_the_lease(apps: Apps, people: UserFactory) -> None:
    apps.deploy("first", ports=PORTS)
    user = people()
    user.connect(apps.namespace)
    user.tpctl("replace", "first", "-c", "app")
    (worker,) = (pid for pid, argv in user.laptop.processes().items() if "tpd.session" in argv)
    os.kill(worker, signal.SIGKILL)
    user.connect(apps.namespace)
    eventually("the end of the earlier engagement", lambda: apps.containers("first") == ["app", "side"])
    user.tpctl("replace", "first", "-c", "app")
    with serving(user):
        apps.answers("http://first:8080/", LAPTOP)
    user.tpctl("quit")


def test_without_the_right_the_sentence_says_which_one_is_missing(
    apps: Apps, namespace: str, manager: str, people: UserFactory
) -> None:
    may(apps, "view", "carol")  # to find the workload at all
    apps.deploy("first", ports=PORTS)
    carol = people(user="carol")
    with may_connect(apps, manager, "carol"):
        carol.connect(namespace)
        sentence = carol.refused("replace", "first", "-c", "app")
        for word in ("carol", "create", "engagements", namespace):
            assert word in sentence
        assert apps.containers("first") == ["app", "side"]
        carol.tpctl("quit")


def test_nobody_connects_without_the_right_to_open_sessions(namespace: str, manager: str, people: UserFactory) -> None:
    dave = people(user="dave")
    dave.laptop.run(["tpctl", "daemon", "start"], user="root", check=True)
    sentence = dave.refused("connect", "-n", namespace, "--manager-namespace", manager)
    for word in ("dave", manager):
        assert word in sentence
