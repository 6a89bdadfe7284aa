"""A replace while things fail: the line is cut, the manager is deleted, the pod is replaced."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.scenarios.apps import LAPTOP, Apps, serving
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

PORTS = [
    {"name": "http", "containerPort": 8080},
    {"name": "echo", "containerPort": 7007},
    {"name": "bulk", "containerPort": 7008},
]

# An upload and a download through the replaced service, and whether the digests agree.
_TRANSFERS = """
import hashlib, json, random, socket, sys, threading
size = int(sys.argv[1])
block = random.Random(1).randbytes(1 << 20)
right = {}
def up():
    with socket.create_connection(("echo", 7008)) as sock:
        sock.sendall(b"sink %d\\n" % size)
        digest = hashlib.sha256()
        for _ in range(size >> 20):
            sock.sendall(block)
            digest.update(block)
        right["up"] = sock.makefile().readline().split() == [str(size), digest.hexdigest()]
def down():
    with socket.create_connection(("echo", 7008)) as sock, sock.makefile("rb") as source:
        sock.sendall(b"source %d digest\\n" % size)
        digest, left = hashlib.sha256(), size
        while left:
            data = source.read(min(left, 1 << 20))
            if not data:
                return
            digest.update(data)
            left -= len(data)
        right["down"] = source.readline().split()[-1].decode() == digest.hexdigest()
threads = [threading.Thread(target=each) for each in (up, down)]
for each in threads: each.start()
for each in threads: each.join()
print(json.dumps(right))
"""

# One connection that is used all the time, and a new one every time.
_PINGS = """
import json, socket, sys, time
result = {"old": 0.0, "new": 0.0, "failed": []}
with socket.create_connection(("echo", 7007)) as old:
    old.settimeout(20)
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        try:
            began = time.monotonic()
            old.sendall(b"x")
            assert old.recv(1) == b"x"
            result["old"] = max(result["old"], time.monotonic() - began)
            began = time.monotonic()
            with socket.create_connection(("echo", 7007), timeout=10) as new:
                new.sendall(b"y")
                assert new.recv(1) == b"y"
            result["new"] = max(result["new"], time.monotonic() - began)
        except (OSError, AssertionError) as error:
            result["failed"].append(repr(error))
        time.sleep(0.05)
print(json.dumps(result))
"""


@contextmanager
def replaced(apps: Apps, people: UserFactory) -> Iterator[User]:
    """A user whose process has taken the place of the container `app` of `echo`."""
    apps.deploy("echo", ports=PORTS)
    user = people()
    user.connect(apps.namespace)
    with serving(user):
        user.tpctl("replace", "echo", "-c", "app")
        apps.answers("http://echo:8080/", LAPTOP)
        yield user
        user.tpctl("quit")


@contextmanager
def calling(apps: Apps, program: str, argument: str) -> Iterator[Future[Any]]:
    """Run a program in the pod `caller` meanwhile; the future gives what it says."""
    with ThreadPoolExecutor(1) as pool:
        words = ["exec", "-n", apps.namespace, "caller", "--", "python3", "-c", program, argument]
        yield pool.submit(lambda: json.loads(apps.cluster.kubectl(*words, timeout=120)))


@pytest.mark.parametrize("fail", [Laptop.cut, Laptop.silence], ids=["resets", "silence"])
def test_transfers_outlive_a_line_that_is_away_for_twenty_seconds(
    apps: Apps, people: UserFactory, fail: Callable[[Laptop], None]
) -> None:
    with replaced(apps, people) as user:
        pod = apps.pod("echo")["metadata"]["uid"]
        with calling(apps, _TRANSFERS, str(300 << 20)) as transfers:
            time.sleep(1.5)
            fail(user.laptop)
            try:
                time.sleep(20)
                assert not transfers.done()
            finally:
                user.laptop.restore()
            began = time.monotonic()
            apps.answers("http://echo:8080/", LAPTOP, within=10)
            assert time.monotonic() - began < 10
            assert transfers.result(90) == {"up": True, "down": True}
        assert apps.pod("echo")["metadata"]["uid"] == pod


def test_nothing_through_an_agent_stops_when_the_manager_is_deleted(
    apps: Apps, people: UserFactory, cluster: Cluster, manager: str
) -> None:
    with replaced(apps, people) as user:
        pod = apps.pod("echo")["metadata"]["uid"]
        with calling(apps, _PINGS, "15") as pings:
            time.sleep(2)
            cluster.kubectl("delete", "pod", "-n", manager, "-l", "app.kubernetes.io/name=traffic-manager")
            cluster.kubectl("rollout", "status", "deployment/traffic-manager", "-n", manager, "--timeout=60s")
            state = "the session to be back"
            eventually(state, lambda: user.json("status")["connections"][0].get("state") == "connected", timeout=10)
            result = pings.result(60)
        assert result["failed"] == []
        assert result["old"] < 2
        assert result["new"] < 2
        assert apps.pod("echo")["metadata"]["uid"] == pod
        assert apps.get("http://echo:8080/").answer == LAPTOP


def test_the_successor_of_a_deleted_pod_has_its_agent_too(apps: Apps, people: UserFactory) -> None:
    with replaced(apps, people):
        name = apps.pod("echo")["metadata"]["name"]
        apps.kubectl("delete", "pod", name)
        assert apps.containers("echo") == ["traffic-agent", "side"]
        apps.answers("http://echo:8080/", LAPTOP)
