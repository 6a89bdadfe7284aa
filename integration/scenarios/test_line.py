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
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

OUTAGE = 20.0
BACK_WITHIN = 10.0
PAUSE = 1.5
"""Seconds that a round trip may take while a manager starts; more where that itself takes more than twice as long."""
KINDS = ("cut", "silence")
PORTS = [
    {"name": "http", "containerPort": 8080},
    {"name": "echo", "containerPort": 7007},
    {"name": "bulk", "containerPort": 7008},
]
RATE, SIZE = 4e6, 28_000_000
"""Bytes per second and bytes of each transfer: seven seconds without an outage."""
HERE, THERE = "/home/dev/start", "/tmp/start"
"""The file that starts the programs of a laptop, and of the pod `caller`."""

# Programs that begin at very different times, on busy processors, go on together: when the file `start` is there.
_START = """
import os, time
def wait_for(start):
    while not os.path.exists(start):
        time.sleep(0.02)
"""

_TRANSFER = (
    _START
    + """
import hashlib, json, random, socket, sys
start, direction, host, size, rate = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
block = random.Random(3).randbytes(1 << 20)
digest, done, gap, gap_ended = hashlib.sha256(), 0, 0.0, 0.0
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # what is on this side already could last for the outage
sock.settimeout(60)
sock.connect((host, 7008))
wait_for(start)
command = "sink %d" if direction == "upload" else "source %d digest"
sock.sendall((command % size).encode() + b"\\n")
begun, last = time.monotonic(), time.time()
while done < size:
    if direction == "upload":
        first = done % (len(block) - 65536)
        piece = block[first : first + min(65536, size - done)]
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
)

# A connection on which nothing is sent until the line is back.
_IDLE = (
    _START
    + """
import socket, sys
start, host, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
with socket.create_connection((host, 7007), timeout=30) as sock:
    sock.sendall(b"before")
    assert sock.recv(100) == b"before"
    wait_for(start)
    time.sleep(pause)
    sock.sendall(b"after")
    assert sock.recv(100) == b"after"
print("alive")
"""
)

# Until /tmp/stop is there: round trips on one connection, and on a new one every time; the longest of each.
_PINGS = """
import json, os, socket, sys, time
longest = {"old": 0.0, "new": 0.0}
address = (sys.argv[1], 7007)
def ping(kind, sock):
    sock.sendall(b"x")
    assert sock.recv(1) == b"x"
    longest[kind] = max(longest[kind], time.monotonic() - begun)
with socket.create_connection(address, timeout=20) as old:
    while not os.path.exists("/tmp/stop"):
        begun = time.monotonic()
        ping("old", old)
        begun = time.monotonic()
        with socket.create_connection(address, timeout=20) as new:
            ping("new", new)
        time.sleep(0.05)
print(json.dumps(longest))
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
    demo: str
    pod: dict[str, Any] = field(default_factory=dict)
    restored: float = 0.0
    connected: float = 0.0
    transfers: dict[str, Transfer] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)

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

    def wait_for_flows(self, port: int, *, outbound: int, inbound: int) -> None:
        """Until so many connections of that port are open."""

        def count(*matching: str) -> int:
            words = ["ss", "-Htn", "state", "established", *matching]
            return len(self.user.laptop.run(words, user="root", check=True).stdout.splitlines())

        def under_way() -> bool:
            here = count("sport", "=", f":{port}")
            return here == inbound and count("dport", "=", f":{port}") - here == outbound

        eventually("the flows to begin", under_way, timeout=60)

    def reach(self) -> str:
        """Through the manager to a service and back; not patient."""
        return self.user.curl(f"http://echo.{self.demo}/healthz", timeout=5)

    def outbound(self, program: str, *arguments: str) -> str:
        """Run a program on the laptop."""
        return self.user.python(program, *arguments, timeout=150)

    def inbound(self, program: str, *arguments: str) -> str:
        """Run a program in another pod."""
        return self.apps.kubectl("exec", "caller", "--", "python3", "-c", program, *arguments)

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
    with ExitStack() as stack, ThreadPoolExecutor(len(KINDS)) as pool:
        stories = {}
        for kind in KINDS:
            laptop = Laptop.create(cluster, f"line-{kind}", anew=True)
            stack.callback(laptop.delete)
            stories[kind] = Story(User(laptop), apps, kind, demo)
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
def outage(replaced: dict[str, Story], demo: str) -> dict[str, Story]:
    """Both lines fail for 20 s, one by resets and one by silence, while bytes run through them in all directions and
    other connections idle."""
    with ThreadPoolExecutor(20) as pool:
        transfers: dict[tuple[str, str], Future[str]] = {}
        idle: dict[tuple[str, str], Future[str]] = {}
        for kind, story in replaced.items():
            for way, run, host, start in (
                ("outbound", story.outbound, f"echo.{demo}", HERE),
                ("inbound", story.inbound, kind, THERE),
            ):
                idle[kind, way] = pool.submit(run, _IDLE, start, host, str(OUTAGE + 7))
                for direction in ("upload", "download"):
                    arguments = (start, direction, host, str(SIZE), str(RATE))
                    transfers[kind, f"{way} {direction}"] = pool.submit(run, _TRANSFER, *arguments)
        for story in replaced.values():
            story.wait_for_flows(7007, outbound=1, inbound=1)
            story.wait_for_flows(7008, outbound=2, inbound=2)
        replaced["cut"].apps.kubectl("exec", "caller", "--", "touch", THERE)
        for story in replaced.values():
            story.user.laptop.path(HERE).touch()
        time.sleep(1)
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
        for (kind, name), transfer in transfers.items():
            replaced[kind].transfers[name] = Transfer(**json.loads(transfer.result(timeout=60)))
        for (kind, name), said in idle.items():
            replaced[kind].idle[name] = said.result(timeout=60).strip()
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
    assert story.idle == {"outbound": "alive", "inbound": "alive"}


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

    story = replaced["cut"]
    old = pods()
    deleted = time.time()
    with ThreadPoolExecutor(2) as pool:
        pings = pool.submit(story.inbound, _PINGS, story.workload)
        story.wait_for_flows(7007, outbound=0, inbound=1)
        cluster.kubectl("delete", "pod", "-n", manager, "-l", "app.kubernetes.io/name=traffic-manager", "--wait=false")
        eventually("the new manager", lambda: any(ready for uid, ready in pods().items() if uid not in old), timeout=40)
        ready = time.time()
        list(pool.map(lambda each: eventually("the session", each.reach, timeout=30), replaced.values()))
        assert time.time() - ready < BACK_WITHIN
        story.apps.kubectl("exec", "caller", "--", "touch", "/tmp/stop")
        longest = json.loads(pings.result(timeout=60))
        # Where the processors are busy everything is slow, the start of the manager too; a stop would last as long.
        pause = max(PAUSE, (ready - deleted) / 2)
        assert longest["old"] < pause
        assert longest["new"] < pause
    for each in replaced.values():
        assert each.state() == "connected"
        each.engaged()


def test_the_successor_of_a_deleted_pod_has_its_agent_too(replaced: dict[str, Story]) -> None:
    story = replaced["silence"]
    story.apps.kubectl("delete", "pod", story.pod["metadata"]["name"])
    assert story.apps.containers(story.workload) == ["traffic-agent", "side"]
    story.apps.answers(f"http://{story.workload}:8080/", LAPTOP)
