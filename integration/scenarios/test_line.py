"""The line to the cluster breaks, or falls silent, or the traffic-manager goes: what was begun goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.scenarios.apps import LAPTOP, Apps, serving
from integration.scenarios.user import User, eventually
from integration.scenarios.workloads import get

# The first test pays for what all of them look at: an outage of 20 s, and what comes before and after it.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

OUTAGE = 20.0
BACK_WITHIN = 10.0
STANDSTILL = 5.0
"""Seconds for which a flow on a busy machine may pause while a manager starts; with it gone, a flow would be reset."""
KINDS = ("cut", "silence")
PORTS = [{"name": "http", "containerPort": 8080}, {"name": "bulk", "containerPort": 7008}]
RATE, SIZE = 6e6, 48_000_000
"""Bytes per second and bytes of each transfer: eight seconds without an outage."""

_TRANSFER = """
import hashlib, json, random, socket, sys, time
direction, host, size, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
block = random.Random(3).randbytes(1 << 20)
digest, done, gap, gap_ended = hashlib.sha256(), 0, 0.0, 0.0
sock = socket.create_connection((host, 7008), timeout=60)
command = "sink %d" if direction == "upload" else "source %d digest"
sock.sendall((command % size).encode() + b"\\n")
begun, last = time.monotonic(), time.time()
while done < size:
    if direction == "upload":
        start = done % (len(block) - 65536)
        piece = block[start : start + min(65536, size - done)]
        sock.sendall(piece)
    else:
        piece = sock.recv(min(65536, size - done))
        assert piece, "the end came early"
    digest.update(piece)
    done += len(piece)
    now = time.time()
    if now - last > gap:
        gap, gap_ended = now - last, now
    time.sleep(max(0.0, begun + done / rate - time.monotonic()))
    last = time.time()
answer = sock.makefile().readline().split()
print(json.dumps({"same": answer[-1] == digest.hexdigest(), "gap": gap, "gap_ended": gap_ended}))
"""


@dataclass(frozen=True)
class Transfer:
    """One flow's life: whether what arrived is what was sent, and its longest standstill (seconds; when it ended)."""

    same: bool
    gap: float
    gap_ended: float


@dataclass
class Story:
    """A laptop with a replace."""

    user: User
    apps: Apps
    workload: str
    pod: dict[str, Any] = field(default_factory=dict)
    restored: float = 0.0
    connected: float = 0.0
    transfers: dict[str, Transfer] = field(default_factory=dict)

    def status(self) -> Any:
        """What is known about its connection."""
        return self.user.json("status")["connections"][0]

    def state(self) -> str:
        """How it is."""
        return str(self.status()["state"])

    def wait_until_back(self) -> None:
        """Until the session is there again."""
        eventually("the session", lambda: self.state() == "connected", timeout=40)
        self.connected = time.time()

    def wait_for_flows(self, outbound: int, inbound: int) -> None:
        """Until so many transfers are under way."""

        def count(*matching: str) -> int:
            words = ["ss", "-Htn", "state", "established", *matching]
            return len(self.user.laptop.run(words, user="root", check=True).stdout.splitlines())

        def under_way() -> bool:
            here = count("sport", "=", ":7008")
            return here == inbound and count("dport", "=", ":7008") - here == outbound

        eventually("the transfers to begin", under_way)

    def reach(self) -> str:
        """Through the manager to a service and back; not patient."""
        return self.user.curl("http://echo.demo/healthz", timeout=5)

    def outbound(self, direction: str) -> Transfer:
        """From the laptop to a service, through the manager."""
        said = self.user.python(_TRANSFER, direction, "echo.demo", str(SIZE), str(RATE), timeout=100)
        return Transfer(**json.loads(said))

    def inbound(self, direction: str, size: int = SIZE) -> Transfer:
        """From another pod to the replaced container, through the agent."""
        arguments = (direction, self.workload, str(size), str(RATE))
        return Transfer(**json.loads(self.apps.kubectl("exec", "caller", "--", "python3", "-c", _TRANSFER, *arguments)))

    def engaged(self) -> None:
        """The replace is as it was: the same engagement, the same pod, the laptop's answer."""
        engagement = self.status()["engagements"][0]
        assert engagement["phase"] == "Active", engagement
        now = self.apps.pod(self.workload)
        assert now["metadata"]["uid"] == self.pod["metadata"]["uid"]
        assert [each["restartCount"] for each in now["status"]["containerStatuses"]] == [0, 0]
        assert self.apps.get(f"http://{self.workload}:8080/").answer == LAPTOP


@pytest.fixture(scope="module")
def replaced(cluster: Cluster, shared_apps: Apps, demo: str) -> Iterator[dict[str, Story]]:
    """Two laptops, each with a replace of its own."""
    apps = shared_apps
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        stories = {}
        for kind in KINDS:
            laptop = Laptop.create(cluster, f"line-{kind}")
            stack.callback(laptop.delete)
            stories[kind] = Story(User(laptop), apps, kind)
            stack.enter_context(serving(stories[kind].user))

        def begin(story: Story) -> None:
            apps.deploy(story.workload, ports=PORTS)
            story.user.connect(apps.namespace)
            story.user.tpctl("replace", story.workload, "-c", "app")
            apps.answers(f"http://{story.workload}:8080/", LAPTOP)
            story.pod = apps.pod(story.workload)

        list(pool.map(begin, stories.values()))
        yield stories


@pytest.fixture(scope="module")
def outage(replaced: dict[str, Story]) -> dict[str, Story]:
    """Both lines fail for 20 s, one by resets and one by silence, while bytes run through them in all directions."""
    with ThreadPoolExecutor(10) as pool:
        running: dict[tuple[str, str], Future[Transfer]] = {}
        for kind, story in replaced.items():
            for direction in ("upload", "download"):
                running[kind, f"outbound {direction}"] = pool.submit(story.outbound, direction)
                running[kind, f"inbound {direction}"] = pool.submit(story.inbound, direction)
        for story in replaced.values():
            story.wait_for_flows(2, 2)
        time.sleep(2)
        replaced["cut"].user.laptop.cut()
        replaced["silence"].user.laptop.silence()
        time.sleep(OUTAGE - 2)
        states = [story.state() for story in replaced.values()]
        time.sleep(2)
        for story in replaced.values():
            story.restored = time.time()
            story.user.laptop.restore()
        list(pool.map(Story.wait_until_back, replaced.values()))
        assert states == ["reconnecting"] * len(replaced)
        for (kind, name), job in running.items():
            replaced[kind].transfers[name] = job.result(timeout=60)
    return replaced


@pytest.mark.parametrize("kind", KINDS)
def test_the_session_is_back_soon_after_the_line(outage: dict[str, Story], kind: str) -> None:
    story = outage[kind]
    assert story.connected - story.restored < BACK_WITHIN
    assert story.reach() == "ok\n"


@pytest.mark.parametrize("kind", KINDS)
def test_open_flows_go_on_from_where_they_were(outage: dict[str, Story], kind: str) -> None:
    story = outage[kind]
    assert len(story.transfers) == 4
    for name, transfer in story.transfers.items():
        assert transfer.same, name
        assert transfer.gap > OUTAGE - 5, f"{name} was not under way in the outage: {transfer}"
        assert 0 < transfer.gap_ended - story.restored < BACK_WITHIN, f"{name}: {transfer}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_replace_goes_on_in_the_same_pod(outage: dict[str, Story], kind: str) -> None:
    outage[kind].engaged()


def test_a_new_manager_takes_over_while_flows_through_agents_go_on(
    replaced: dict[str, Story], cluster: Cluster, manager: str
) -> None:
    def pods() -> dict[str, bool]:
        """Uid of every pod of the manager, and whether it is ready."""
        found = get(cluster, "pods", "-n", manager, "-l", "app.kubernetes.io/name=traffic-manager")["items"]
        return {
            pod["metadata"]["uid"]: any(
                each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", [])
            )
            for pod in found
        }

    old = pods()
    with ThreadPoolExecutor(2 * len(replaced)) as pool:
        running = [
            pool.submit(story.inbound, direction, 2 * SIZE)
            for story in replaced.values()
            for direction in ("upload", "download")
        ]
        for story in replaced.values():
            story.wait_for_flows(0, 2)
        begun = time.time()
        cluster.kubectl("delete", "pod", "-n", manager, "-l", "app.kubernetes.io/name=traffic-manager", "--wait=false")
        eventually("the new manager", lambda: any(ready for uid, ready in pods().items() if uid not in old), timeout=40)
        ready = time.time()
        for story in replaced.values():
            eventually("the session", story.reach, timeout=30)
            assert story.state() == "connected"
        assert time.time() - ready < BACK_WITHIN
        for job in running:
            transfer = job.result(timeout=60)
            assert transfer.same
            assert transfer.gap < STANDSTILL, (
                f"stood still for {transfer.gap} s, {transfer.gap_ended - begun} s after the deletion"
            )
    for story in replaced.values():
        story.engaged()
