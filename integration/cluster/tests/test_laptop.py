"""A laptop reaches the API server and its resolver, and keeps everything else to itself."""

import json
import os
import signal
import subprocess
import time

import pytest

from integration.cluster import addresses as at
from integration.cluster.cluster import Cluster
from integration.cluster.commands import wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.laptop import Laptop
from integration.conftest import LaptopFactory

pytestmark = [pytest.mark.cluster, pytest.mark.root]

CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5)
except OSError as error:
    print(type(error).__name__)
else:
    print("connected")
"""
ROUND_TRIPS = """
import socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
def once():
    begun = time.perf_counter()
    with socket.create_connection((host, port)) as connection:
        connection.sendall(b"no TLS\\r\\n\\r\\n")
        connection.recv(100)
    return time.perf_counter() - begun
print(min(once() for _ in range(5)))  # the machine may be busy
"""


def connect(laptop: Laptop, address: str, port: int) -> str:
    return laptop.run(["python3", "-c", CONNECT, address, str(port)], check=True).stdout.strip()


def test_reaches_only_the_api_server(cluster: Cluster, laptop: LaptopFactory) -> None:
    one = laptop()
    pod = cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "jsonpath={.items[0].status.podIP}")
    assert connect(one, at.NODE, at.API_PORT) == "connected"
    assert connect(one, at.API_AMONG_SERVICES, at.API_PORT) == "connected"
    for address, port in ((at.NODE, 10250), (at.KUBERNETES_SERVICE, 443), (at.CLUSTER_DNS, 53), (pod, 8181)):
        assert connect(one, address, port) == "TimeoutError"


def test_identity_is_the_kubeconfigs(laptop: LaptopFactory) -> None:
    alice = laptop(user="alice", groups=("developers",))
    words = ["kubectl", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"]
    assert alice.run(words, check=True).stdout == 'alice ["developers","system:authenticated"]'
    assert "forbidden" in alice.run(["kubectl", "get", "secrets", "-A"]).stderr


def test_files_are_its_own(laptop: LaptopFactory) -> None:
    one, other = laptop(), laptop()
    one.run(["sh", "-c", "echo changed > /etc/resolv.conf; mkdir -p /var/lib/tpd /run/tpd"], user="root", check=True)
    assert one.path("/etc/resolv.conf").read_text() == "changed\n"
    assert "changed" not in other.path("/etc/resolv.conf").read_text()
    assert other.run(["ls", "/var/lib/tpd"]).returncode != 0
    one.run(["sh", "-c", "echo new > /etc/new; mv /etc/new /etc/resolv.conf"], user="root", check=True)
    assert one.path("/etc/resolv.conf").read_text() == "new\n"
    assert one.run(["id", "-nG"], check=True).stdout.split() == ["dev", "tpd"]
    assert one.run(["id", "-nG"], user="guest", check=True).stdout.split() == ["guest"]
    assert one.run(["python3", "-c", "import grpc; print('ok')"], user="guest", check=True).stdout == "ok\n"


def test_host_state_shows_a_change(laptop: LaptopFactory) -> None:
    one = laptop()
    before = one.host_state()
    assert before == one.host_state()
    one.run(["ip", "rule", "add", "to", "203.0.113.0/24", "lookup", "99"], user="root", check=True)
    assert before != one.host_state()


@pytest.mark.parametrize("resolver", ["file", "systemd-resolved"])
def test_names_outside(laptop: LaptopFactory, resolver: str) -> None:
    one = laptop(resolver="systemd-resolved" if resolver == "systemd-resolved" else "file")
    assert one.run(["getent", "hosts", "www.corp.example"], check=True).stdout.split()[0] == "198.51.100.10"
    assert one.run(["getent", "hosts", "intranet"], check=True).stdout.split()[0] == "198.51.100.11"
    assert one.run(["getent", "hosts", "nobody.corp.example"]).returncode != 0
    assert {"www.corp.example", "intranet.corp.example"} <= {question["name"] for question in one.questions()}


def test_round_trip_costs_what_it_should(laptop: LaptopFactory) -> None:
    slow = laptop(rtt=0.05)
    port = slow.api_server.rpartition(":")[2]
    taken = float(slow.run(["python3", "-c", ROUND_TRIPS, at.NODE, port], check=True).stdout)
    assert 0.1 <= taken < 0.2  # one round trip to connect, one for question and answer


@pytest.mark.parametrize("rtt", [None, 0.0])
def test_line_is_cut_silent_and_back(laptop: LaptopFactory, rtt: float | None) -> None:
    one = laptop(rtt=rtt)
    ask = ["kubectl", "get", "--raw", "/readyz", "--request-timeout=2s"]
    watch = one.popen(["kubectl", "get", "pods", "-A", "--watch", "-v=6"], stdout=subprocess.DEVNULL)
    assert watch.stderr is not None
    while "watch=true" not in (line := watch.stderr.readline()):
        assert line, "kubectl did not get as far as watching"
    one.cut()
    assert "reset by peer" in watch.stderr.read() + watch.stderr.read()
    watch.wait(10)
    watch.stderr.close()
    assert "refused" in one.run(ask).stderr
    one.restore()
    assert one.run(ask, check=True).stdout == "ok"
    one.silence()
    begun = time.monotonic()
    assert one.run(ask).returncode != 0
    assert time.monotonic() - begun >= 2
    one.restore()
    assert one.run(ask, check=True).stdout == "ok"


def test_signals_reach_the_program_and_deletion_ends_all(laptop: LaptopFactory) -> None:
    one = laptop()
    trapping = one.popen(["sh", "-c", 'trap "echo caught; exit 3" INT; echo ready; while :; do sleep 0.05; done'])
    assert trapping.stdout is not None
    assert trapping.stdout.readline() == "ready\n"
    trapping.send_signal(signal.SIGINT)
    out, _ = trapping.communicate(timeout=5)
    assert (out, trapping.returncode) == ("caught\n", 3)
    with pytest.raises(subprocess.TimeoutExpired):
        one.run(["sleep", "30"], timeout=0.2)
    one.run(["sh", "-c", "setsid sleep 31 >/dev/null 2>&1 </dev/null &"], check=True)
    wait_for("sleep", lambda: [argv for argv in one.processes().values() if argv] == [["sleep", "31"]], timeout=10)
    left = one.processes()
    room = one.room
    Laptop.create(one.cluster, f"{one.name}-b").delete()
    one.room.kill()
    assert not room.alive
    assert not any(os.path.exists(f"/proc/{pid}/ns/pid") for pid in left)


def test_the_nodes_address_on_the_lan_stays_whoever_comes_and_goes(cluster: Cluster) -> None:
    def address() -> str:
        return str(json.loads(cluster.node.run(["ip", "-json", "link", "show", at.LAN_BRIDGE]))[0]["address"])

    before = address()
    cluster.node.script(
        "ip link add lowest address 00:00:00:00:00:02 type veth peer name highest\n"
        f"ip link set lowest master {at.LAN_BRIDGE} up"
    )
    try:
        assert address() == before
    finally:
        cluster.node.run(["ip", "link", "delete", "lowest"])
    assert address() == before


def test_name_is_taken_once(cluster: Cluster, laptop: LaptopFactory) -> None:
    one = laptop()
    with pytest.raises(ClusterError, match="already"):
        Laptop.create(cluster, one.name)
    with pytest.raises(ClusterError, match="no name"):
        Laptop.create(cluster, "../x")


def test_what_a_killed_run_left_is_made_anew_as_the_same_machine(cluster: Cluster) -> None:
    """So its daemon knows its own earlier session."""
    left = Laptop.create(cluster, "anew")
    identity = left.path("/etc/machine-id").read_text()
    other = Laptop.create(cluster, "other", anew=True)
    assert other.path("/etc/machine-id").read_text() != identity
    again = Laptop.create(cluster, "anew", anew=True)
    assert not left.room.alive
    assert again.path("/etc/machine-id").read_text() == identity
    other.delete()
    (cluster.places.laptops / "other").mkdir()  # killed before it could note anything
    Laptop.create(cluster, "other", anew=True).delete()
    again.delete()
