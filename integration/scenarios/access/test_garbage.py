"""Garbage on every port and socket ends that connection only."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from integration.scenarios.access import garbage
from integration.scenarios.access.processes import of_pod, resident
from integration.scenarios.access.stage import Stage
from integration.scenarios.user import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_cluster")]

SECONDS = 3.0
"""For which connections are held that the other side does not end."""
MEMORY = 64
"""MiB by which each process may have grown afterwards."""
SOCKET = "/run/tpd/tpd.sock"


def from_a_pod(stage: Stage) -> dict[str, str]:
    """To every port of the manager and of the agent; by names that stay the same."""
    manager, agent = stage.manager_peer().address, stage.agent_peer().address
    kinds = {8443: "mutual", 8444: "tls", 8445: "tls", 8446: "http"}
    targets = [*((f"{manager}:{port}", what) for port, what in kinds.items()), (f"{agent}:9900", "mutual")]
    source = Path(garbage.__file__).read_text()
    wanted = json.dumps({"seconds": SECONDS, "targets": targets})
    words = ("exec", "-i", "stranger", "--", "python3", "-I", "-c", source)
    outcome: dict[str, str] = json.loads(stage.apps.kubectl(*words, stdin=wanted))
    return {name.partition(":")[2]: how for name, how in outcome.items()}


def from_the_laptop(stage: Stage, account: str) -> dict[str, str]:
    """To the daemon's socket."""
    argv = ["python3", "-m", garbage.__name__]
    wanted = json.dumps({"seconds": SECONDS, "targets": [(SOCKET, "daemon")]})
    done = stage.alice.laptop.run(argv, user=account, stdin=wanted, timeout=garbage.LIMIT + SECONDS + 20)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, str] = json.loads(done.stdout)
    return outcome


def processes(stage: Stage) -> dict[str, int]:
    """Those that garbage reaches, and what they carry."""
    status = stage.alice.json("status")
    inside = {status["pid"]: "tpd", status["connections"][0]["worker_pid"]: "worker"}
    found = {}
    for pid in stage.alice.laptop.processes():  # by the machine's ids; the laptop counts its own
        numbers = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line[:6] == "NSpid:")
        if name := inside.get(int(numbers.split()[-1])):
            found[name] = pid
    found["manager"] = of_pod(stage.manager_pod()["metadata"]["uid"], "manager.main")
    found["agent"] = of_pod(stage.apps.pod("victim")["metadata"]["uid"], "agent.main")
    return found


def test_garbage_ends_that_connection_only(stage: Stage) -> None:
    running = processes(stage)
    assert set(running) == {"tpd", "worker", "manager", "agent"}
    before = {name: (resident(pid), _files(pid)) for name, pid in running.items()}
    with ThreadPoolExecutor(3) as pool:
        attacks = [pool.submit(from_a_pod, stage)]
        attacks += [pool.submit(from_the_laptop, stage, account) for account in ("dev", "guest")]
        while not all(attack.done() for attack in attacks):
            stage.works()
    network, by_a_member, by_a_guest = ({n for n, how in each.result().items() if how == "open"} for each in attacks)
    must_end = {name for kind in garbage.ENDED.values() for name in kind}
    assert {name for name in (*network, *by_a_member) if name.split(" ", 1)[1] in must_end} == set()
    assert by_a_guest == set(), "who may not use it is not listened to"
    after = {name: (resident(pid), _files(pid)) for name, pid in running.items()}
    assert processes(stage) == running, "none of them began anew"
    grown = {name: (after[name][0] - memory) >> 20 for name, (memory, _) in before.items()}
    assert max(grown.values()) < MEMORY, f"MiB: {grown}"
    for name, (_, files) in before.items():
        eventually(f"{name} to let go of what it held", partial(_holds_at_most, running[name], files + 8))
    stage.works()


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _holds_at_most(pid: int, files: int) -> bool:
    return _files(pid) <= files
