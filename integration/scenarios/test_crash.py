"""kill -9 of our processes on the laptop: its network is as before, and the replaced container comes back.

So it does when the laptop is away for longer than its lease.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop, ResolverKind
from integration.scenarios.apps import LAPTOP, ORIGINAL, Apps, serving
from integration.scenarios.conftest import install
from integration.scenarios.user import User, eventually
from integration.scenarios.workloads import get

# The first test pays for what all of them look at.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

LEASE = 10
GRACE = 5
"""Seconds beyond the lease: the manager's, to notice and to write, and ours, to see it."""
PORTS = [{"name": "http", "containerPort": 8080}]
WORKER, TPD = "tpd.session", "tpd.supervisor.main"
CRASHES: dict[str, tuple[str, ...]] = {"worker": (WORKER,), "tpd": (TPD,), "both": (TPD, WORKER)}
RESOLVERS: tuple[ResolverKind, ...] = ("file", "systemd-resolved")
REPLACING: ResolverKind = "file"
"""Laptops with this resolver replace a container too; what becomes of that does not depend on the resolver."""
CASES = [(victims, resolver) for victims in CRASHES for resolver in RESOLVERS]
AGAIN = [*((victims, REPLACING) for victims in CRASHES), ("both", "systemd-resolved")]
"""Where connecting once more is tried too."""


@dataclass
class Crash:
    """A connected laptop, and what became of it."""

    user: User
    apps: Apps
    workload: str | None
    victims: tuple[str, ...]
    before: str = ""
    connected: str = ""
    after: str = ""
    killed: float = 0.0
    released: float = 0.0

    def begin(self) -> None:
        """Connect, and replace."""
        self.before = self.user.laptop.host_state()
        self.user.connect(self.apps.namespace)
        if self.workload:
            self.apps.deploy(self.workload, ports=PORTS)
            self.user.tpctl("replace", self.workload, "-c", "app")
            self.apps.answers(f"http://{self.workload}:8080/", LAPTOP)
        self.connected = self.user.laptop.host_state()

    def ours(self, *modules: str) -> list[int]:
        """Processes of these modules, by default of all."""
        wanted = set(modules or (WORKER, TPD))
        return [pid for pid, argv in self.user.laptop.processes().items() if wanted & set(argv)]

    def kill(self) -> None:
        """Kill, or just lose the line."""
        if not self.victims:
            self.killed = time.monotonic()
            self.user.laptop.cut()
            return
        victims = self.ours(*self.victims)
        assert len(victims) == len(self.victims)
        self.killed = time.monotonic()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # neither gets to see the other's end
            for pid in victims:
                os.kill(pid, number)

    def next_command(self) -> None:
        """Run one command of tpctl."""
        laptop = self.user.laptop
        # Without a daemon, and without sudo in this laptop, only root can put the network right.
        account = "root" if TPD in self.victims else self.user.account
        laptop.run(["tpctl", "status"], user=account, check=True)
        self.after = laptop.host_state()

    def wait_for_release(self) -> None:
        """Until nobody holds the container, and the original answers."""

        def released() -> bool:
            held = get(self.apps.cluster, "engagements", "-n", self.apps.namespace)["items"]
            return all(each["spec"]["workload"]["name"] != self.workload for each in held)

        eventually("the end of the engagement", released, timeout=3 * LEASE)
        self.released = time.monotonic()
        self.apps.answers(f"http://{self.workload}:8080/", ORIGINAL)


Crashes = dict[tuple[str, str], Crash]
AWAY = "away", REPLACING


@pytest.fixture(scope="module")
def crashes(cluster: Cluster, shared_apps: Apps, manager: str) -> Iterator[Crashes]:
    """A crash of each kind on laptops of each kind, and one that is only away, all at the same time, under a manager
    with a short lease."""
    with ExitStack() as stack, ThreadPoolExecutor(2 * len(CASES)) as pool:
        stack.callback(install, cluster)
        install(cluster, leaseSeconds=LEASE)
        all_of_them: Crashes = {}
        for victims, resolver in [*CASES, AWAY]:
            name = f"crash-{victims}-{resolver.partition('-')[0]}"
            laptop = Laptop.create(cluster, name, resolver=resolver, anew=True)
            stack.callback(laptop.delete)
            user = User(laptop)
            if resolver == REPLACING:
                stack.enter_context(serving(user))
            workload = victims if resolver == REPLACING else None
            all_of_them[victims, resolver] = Crash(user, shared_apps, workload, CRASHES.get(victims, ()))
        list(pool.map(Crash.begin, all_of_them.values()))
        going: list[Future[None]] = []
        for crash in all_of_them.values():
            crash.kill()
            going += [pool.submit(crash.wait_for_release)] if crash.workload else []
            going += [pool.submit(crash.next_command)] if crash.victims else []
        for each in going:
            each.result()
        yield all_of_them


@pytest.mark.parametrize(("victims", "resolver"), CASES)
def test_the_network_is_as_before_after_the_next_command(crashes: Crashes, victims: str, resolver: str) -> None:
    crash = crashes[victims, resolver]
    assert "lookup 7000" in crash.connected  # our table, by our rule
    assert crash.after == crash.before


@pytest.mark.parametrize("victims", [*CRASHES, AWAY[0]])
def test_the_container_is_given_back_within_the_lease(crashes: Crashes, victims: str) -> None:
    crash = crashes[victims, REPLACING]
    assert crash.workload
    assert crash.released - crash.killed < LEASE + GRACE
    assert crash.apps.containers(crash.workload) == ["app", "side"]


@pytest.mark.parametrize(("victims", "resolver"), AGAIN)
def test_connecting_again_works(crashes: Crashes, victims: str, resolver: str) -> None:
    crash = crashes[victims, resolver]
    if TPD in crash.victims:
        crash.user.laptop.run(["tpctl", "daemon", "start"], user="root", check=True)
    crash.user.tpctl("connect", "-n", crash.apps.namespace)
    assert crash.user.curl(f"http://{victims}:8080/healthz") == "ok\n"
    crash.user.tpctl("quit", "-s")
    assert crash.user.laptop.host_state() == crash.before
    assert crash.ours() == []


def test_a_laptop_that_returns_after_its_lease_asks_again(crashes: Crashes) -> None:
    away = crashes[AWAY]
    assert away.released
    away.user.laptop.restore()
    away.apps.answers(f"http://{away.workload}:8080/", LAPTOP)
    look = away.user.json
    active = "an active engagement"
    eventually(active, lambda: look("status")["connections"][0]["engagements"][0]["phase"] == "Active")
