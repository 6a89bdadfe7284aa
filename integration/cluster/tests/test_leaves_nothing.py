"""A cluster comes and goes without a trace on the machine, even when it is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.cluster import addresses as at
from integration.cluster.cluster import Cluster, create_node, down
from integration.cluster.laptop import Laptop
from integration.cluster.machine import machine_state
from integration.cluster.places import Places

pytestmark = [pytest.mark.cluster, pytest.mark.root]

NAME = f"traces-{os.getpid()}"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    down(NAME)


def network_namespaces_in_use() -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add(os.readlink(entry / "ns/net"))
            except OSError:  # it ended meanwhile
                continue
    return found


def test_killed_cluster_leaves_nothing() -> None:
    """Up, a pod and a laptop; then its holder dies as in a crash; then `down`."""
    before = machine_state()
    cluster = Cluster.up(NAME)
    laptop = Laptop.create(cluster, "witness", rtt=0.0)
    assert laptop.run(["kubectl", "get", "nodes"]).returncode == 0
    during = machine_state()
    rooms = [cluster.node, laptop.room]
    namespaces = {os.readlink(f"/proc/{room.pid}/ns/net") for room in rooms}
    processes = {pid for room in rooms for pid in room.processes()}
    assert len(processes) > 10
    assert during["mounts"] == before["mounts"]
    assert during["ip -details -oneline link"] == before["ip -details -oneline link"]
    assert during["nft --stateless list ruleset"] == before["nft --stateless list ruleset"]

    os.kill(cluster.node.pid, signal.SIGKILL)
    down(NAME)

    assert not namespaces & network_namespaces_in_use()
    assert not [pid for pid in processes if is_running(pid)]
    assert not Places(NAME).root.exists()
    after = machine_state()
    # Another cluster that runs beside this one changes its own pods' groups.
    for state in (before, after):
        state["control groups"] = "\n".join(
            line for line in state["control groups"].splitlines() if "/tpctl-cluster-" not in line or NAME in line
        )
    assert after == before


def test_crash_while_starting_leaves_nothing() -> None:
    """Only the room with its network exists when the harness dies; the next `down` removes it."""
    before = machine_state()
    node = create_node(Places(NAME), [])
    assert at.LAN_BRIDGE in node.run(["ip", "link"])
    Places(NAME).state.unlink()  # it died before it could note anything
    down(NAME)
    assert not node.alive
    after = machine_state()
    assert after["mounts"] == before["mounts"]
    assert NAME not in after["control groups"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
