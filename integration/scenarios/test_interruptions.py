"""What comes in between: a quit, a deleted session, a shorter lease, many programs that ask at the same moment."""

from __future__ import annotations

import time

import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.apps import LAPTOP, ORIGINAL, Apps, serving
from integration.scenarios.conftest import UserFactory, install
from integration.scenarios.user import User, eventually
from integration.scenarios.workloads import get

pytestmark = pytest.mark.cluster

PORTS = [{"name": "http", "containerPort": 8080}]
LEASE = 8

_ASK = """
import concurrent.futures, socket, sys
with concurrent.futures.ThreadPoolExecutor(128) as pool:
    answers = list(pool.map(lambda _: socket.getaddrinfo(sys.argv[1], 80, socket.AF_INET)[0][4][0], range(256)))
print(len(answers), len(set(answers)))
"""


def _sessions(cluster: Cluster, manager: str, user: User) -> set[str]:
    """Names of the sessions of this laptop."""
    machine = user.laptop.path("/etc/machine-id").read_text().strip()
    items = get(cluster, "sessions", "-n", manager)["items"]
    return {each["metadata"]["name"] for each in items if each["spec"]["client"]["machineId"] == machine}


def test_a_quit_during_a_replace_leaves_nothing(
    cluster: Cluster, apps: Apps, namespace: str, manager: str, people: UserFactory
) -> None:
    apps.deploy("orders", ports=PORTS)
    user = people()
    user.start_daemon()
    before = user.laptop.host_state()
    user.connect(namespace)
    with user.laptop.popen(["tpctl", "replace", "orders", "-c", "app"]) as replacing:
        eventually("an engagement", lambda: get(cluster, "engagements", "-n", namespace)["items"], every=0.02)
        user.tpctl("quit")
        said = replacing.communicate(timeout=30)[1]
    assert replacing.returncode == 1
    assert "ended by tpctl quit" in said.splitlines()[-1]
    assert get(cluster, "engagements", "-n", namespace)["items"] == []
    assert _sessions(cluster, manager, user) == set()
    assert user.laptop.host_state() == before
    eventually("the original pod", lambda: apps.containers("orders") == ["app", "side"])
    apps.answers("http://orders:8080/", ORIGINAL)


def test_a_session_that_somebody_deletes_is_made_again_and_asks_again(
    cluster: Cluster, apps: Apps, namespace: str, manager: str, demo: str, people: UserFactory
) -> None:
    apps.deploy("orders", ports=PORTS)
    user = people()
    user.connect(namespace)
    with serving(user):
        user.tpctl("replace", "orders", "-c", "app")
        apps.answers("http://orders:8080/", LAPTOP)
        first = _sessions(cluster, manager, user)
        cluster.kubectl("delete", "session", *first, f"--namespace={manager}")
        eventually("another session", lambda: len(_sessions(cluster, manager, user) - first) == 1)
        eventually("the connection", lambda: user.json("status")["connections"][0]["state"] == "connected")
        assert user.curl(f"http://echo.{demo}/healthz") == "ok\n"
        apps.answers("http://orders:8080/", LAPTOP, within=40)
    user.tpctl("leave", "orders")
    apps.answers("http://orders:8080/", ORIGINAL)


def test_a_shorter_lease_ends_no_session(cluster: Cluster, manager: str, demo: str, people: UserFactory) -> None:
    user = people()
    user.connect(demo)
    sessions = _sessions(cluster, manager, user)
    try:
        install(cluster, leaseSeconds=LEASE)
        time.sleep(2 * LEASE)
        assert _sessions(cluster, manager, user) == sessions
        assert user.json("status")["connections"][0]["state"] == "connected"
        assert user.curl("http://echo/healthz") == "ok\n"
    finally:
        install(cluster)


def test_many_programs_ask_for_one_name_at_once(people: UserFactory, demo: str) -> None:
    user = people(rtt=0.02)
    user.connect(demo)
    for name in ("echo", f"echo.{demo}.svc.cluster.local"):
        assert user.python(_ASK, name).split() == ["256", "1"]
