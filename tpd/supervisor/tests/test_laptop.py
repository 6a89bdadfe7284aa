"""The real host, in a network namespace of its own: what is changed, and that it all comes back."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tpd.supervisor.tests.laptop import RESOLV_CONF, Laptop, laptop
from tunnel.proto import daemon_pb2 as pb

pytestmark = pytest.mark.root

HOST = {
    "subnets": ["10.96.0.0/12", "192.168.0.0/16", "0.0.0.0/0", "fd00:96::/112"],
    "bypass": ["10.96.0.1", "203.0.113.7"],
    "search": ["demo.svc.cluster.local", "svc.cluster.local"],
    "domains": ["svc", "cluster.local", "demo"],
    "dns": True,
}


@pytest.fixture
def place() -> Iterator[Laptop]:
    with laptop() as made:
        yield made


def same(before: str, after: str) -> None:
    difference = "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))
    assert not difference, difference


def until(done: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(place: Laptop) -> tuple[int, int]:
    """(tpd, worker)"""
    status = place.ask(pb.Request(status=pb.Status()))[1].status
    return status.pid, status.connections[0].worker_pid


@pytest.mark.parametrize("bind", [True, False])
def test_connect_and_quit(bind: bool) -> None:
    with laptop(bind=bind) as place:
        before = place.state_text()
        place.start_daemon()
        event = place.connect(json.dumps(HOST), namespace="demo")
        assert event.connect.device == "tp0"

        def way(address: str) -> str:
            return place.run("ip", "route", "get", address)

        assert "dev tp0" in way("10.96.0.10")
        assert "dev tp0" in way("192.168.1.1")
        assert "dev tp0" in way(event.connect.dns_address)
        assert "dev tp0" in way("fd00:96::7")
        for own in ("10.96.0.1", "203.0.113.7", "192.168.77.53", "192.168.77.1", "192.168.77.9", "1.1.1.1"):
            assert "dev eth0" in way(own), own
        link = place.run("ip", "-d", "link", "show", "tp0")
        assert "mtu 65535" in link
        assert "qlen 10000" in link
        text = place.run("cat", "/etc/resolv.conf")
        assert "search demo.svc.cluster.local svc.cluster.local corp.example" in text
        assert f"nameserver {event.connect.dns_address}\n" in text
        assert text.count("nameserver") == 1
        assert "options ndots:1" in text
        known = place.whoami()
        assert known["resolver"] == "resolv.conf"
        assert "0.0.0.0/0 is the default route" in json.loads(known["refused"])
        assert 'addresses: "192.168.77.53"' in known["start"]
        place.ask(pb.Request(quit=pb.Quit(stop_daemon=True)))
        place.daemons[0].wait(10)
        same(before, place.state_text())


@pytest.mark.parametrize("victims", ["worker", "tpd", "tpd worker", "worker tpd"])
def test_kill_9_of_anybody(place: Laptop, victims: str) -> None:
    before = place.state_text()
    place.start_daemon()
    place.connect(json.dumps(HOST))
    tpd, worker = pids(place)
    for victim in victims.split():
        os.kill(tpd if victim == "tpd" else worker, signal.SIGKILL)
    if "tpd" in victims:
        place.daemons[0].wait(5)
        until(lambda: "tp0" not in place.run("ip", "link"))  # the worker ends with its control socket
        assert "not running" in place.tpctl("status")
    else:
        until(lambda: "tp0" not in place.run("ip", "link"))
        until(lambda: place.run("cat", "/etc/resolv.conf") == RESOLV_CONF)
        assert "failed" in place.tpctl("status")
    same(before, place.state_text())
    assert not list(place.state.glob("journal/*.jsonl"))


@pytest.mark.parametrize("signals", ["TERM", "TERM HUP", "HUP TERM HUP"])  # logind sends two at the end of a session
def test_a_terminated_tpd_undoes_everything_before_it_ends(place: Laptop, signals: str) -> None:
    before = place.state_text()
    daemon = place.start_daemon()
    place.connect(json.dumps(HOST))
    _, worker = pids(place)
    for each in signals.split():
        daemon.send_signal(signal.Signals[f"SIG{each}"])
    assert daemon.wait(10) == 0
    assert not alive(worker)
    same(before, place.state_text())


def test_a_worker_that_outlives_tpd_is_ended_by_the_next_start(place: Laptop) -> None:
    before = place.state_text()
    place.start_daemon()
    place.connect(json.dumps(HOST))
    tpd, worker = pids(place)
    os.kill(worker, signal.SIGSTOP)
    os.kill(tpd, signal.SIGKILL)
    place.daemons[0].wait(5)
    place.start_daemon()
    until(lambda: not alive(worker))
    same(before, place.state_text())


def test_restoring_twice_and_without_a_reason_changes_nothing(place: Laptop) -> None:
    before = place.state_text()
    place.restore()
    place.start_daemon()
    place.connect(json.dumps(HOST))
    journal = (place.state / "journal" / "tp0.jsonl").read_bytes()
    place.ask(pb.Request(quit=pb.Quit(stop_daemon=True)))
    place.daemons[0].wait(10)
    (place.state / "journal" / "tp0.jsonl").write_bytes(journal + b'{"kind":"torn')
    place.restore()
    same(before, place.state_text())


def test_a_wish_is_the_whole_state_and_the_same_again_changes_nothing(place: Laptop) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))

    def wish(host: object) -> str:
        place.ask(pb.Request(replace=pb.Replace(workload="wish", container=json.dumps(host))))
        return place.state_text()

    before = place.state_text()
    same(before, wish(HOST))
    smaller = wish({"subnets": ["10.96.0.0/16"], "bypass": ["203.0.113.7"]})
    assert place.run("ip", "route", "show", "table", "7000").splitlines() == [
        "10.96.0.0/16 dev tp0 proto static scope link src 198.19.254.1 ",
        "throw 192.168.77.53 proto static ",
        "198.19.254.2 dev tp0 proto static scope link src 198.19.254.1 ",
        "throw 203.0.113.7 proto static ",
    ]
    assert RESOLV_CONF in smaller  # without dns, names go as before
    same(before, wish(HOST))


def test_two_connections_are_apart(place: Laptop) -> None:
    place.start_daemon()
    first = json.dumps({"subnets": ["10.96.0.0/12"], "bypass": ["10.32.0.1"]})
    second = json.dumps({"subnets": ["10.32.0.0/16", "10.97.0.0/16"]})
    assert place.connect(first, name="a").connect.device == "tp0"
    assert place.connect(second, name="b").connect.device == "tp1"
    assert "dev tp0" in place.run("ip", "route", "get", "10.97.0.5")
    assert "dev tp1" in place.run("ip", "route", "get", "10.32.0.5")
    assert "dev eth0" in place.run(
        "ip", "route", "get", "10.32.0.1"
    )  # the first one's carrier, inside the second's subnet
    place.ask(pb.Request(connection="a", quit=pb.Quit()))
    assert "dev tp1" in place.run("ip", "route", "get", "10.32.0.1")  # nobody's carrier any more
    assert "dev tp1" in place.run("ip", "route", "get", "10.32.0.5")
    assert "lookup 7000" not in place.run("ip", "rule")


def packet(source: str, destination: str, port: int) -> str:
    """An IPv4 UDP packet of eight payload bytes as hex, without UDP checksum."""
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed
    head = bytes.fromhex("4500 0024 0000 4000 4011") + b"\0\0" + addresses
    total = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    check = (~((total & 0xFFFF) + (total >> 16))) & 0xFFFF
    udp = b"\x30\x39" + port.to_bytes(2, "big") + b"\x00\x10\x00\x00" + b"injected"
    return (head[:10] + check.to_bytes(2, "big") + head[12:] + udp).hex()


def test_only_sources_that_are_routed_to_the_device_come_from_it(place: Laptop) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))
    listener = (
        "import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('0.0.0.0',4242))\n"
        "print('up',flush=True)\ns.settimeout(20)\nwhile True:\n  print(s.recvfrom(100)[1][0],flush=True)\n"
    )
    process = subprocess.Popen(
        place.command(sys.executable, "-I", "-c", listener),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"

        def inject(source: str, destination: str) -> None:
            wish = pb.Replace(workload="inject", container=packet(source, destination, 4242))
            place.ask(pb.Request(replace=wish))

        def received_outside() -> int:
            link = json.loads(place.run("ip", "-j", "-s", "link", "show", "far"))[0]
            return int(link["stats64"]["rx"]["packets"])

        for source in ("8.8.8.8", "192.168.77.9", "192.168.77.2", "10.96.0.1", "127.0.0.1", "198.19.254.1"):
            inject(source, "198.19.254.1")
        inject("10.96.0.10", "198.19.254.1")
        assert process.stdout.readline() == "10.96.0.10\n"

        outside = json.loads(place.run("ip", "-j", "link", "show", "far"))[0]["address"]
        place.run("ip", "neigh", "add", "192.168.77.1", "lladdr", outside, "dev", "eth0")
        # IPv6 has things to say of its own (who is a router, who listens to what), and they would be counted.
        place.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.eth0.disable_ipv6=1")
        before = received_outside()
        inject("10.96.0.10", "1.1.1.1")
        inject("10.96.0.10", "198.19.254.1")
        assert process.stdout.readline() == "10.96.0.10\n"
        assert received_outside() == before

        # Without the filter and the device's own settings all of that gets through: they are what stops it.
        place.run("nft", "delete", "table", "inet", "tpd_tp0")
        place.run("sysctl", "-qw", "net.ipv4.conf.tp0.rp_filter=0", "net.ipv4.conf.tp0.forwarding=1")
        inject("8.8.8.8", "198.19.254.1")
        assert process.stdout.readline() == "8.8.8.8\n"
        inject("10.96.0.10", "1.1.1.1")
        until(lambda: received_outside() > before)
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()


@pytest.mark.parametrize("guard", ["nft", "settings"])
def test_each_of_the_two_guards_is_enough_for_forged_sources(place: Laptop, guard: str) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))
    if guard == "nft":
        place.run("sysctl", "-qw", "net.ipv4.conf.tp0.rp_filter=0")
    else:
        place.run("nft", "delete", "table", "inet", "tpd_tp0")

    def received() -> int:
        text = place.run("cat", "/proc/net/snmp").splitlines()
        names, values = (line.split() for line in text if line.startswith("Udp:"))
        return int(values[names.index("NoPorts")])

    before = received()
    for source in ("8.8.8.8", "192.168.77.9", "10.96.0.10"):
        wish = pb.Replace(workload="inject", container=packet(source, "198.19.254.1", 4242))
        place.ask(pb.Request(replace=wish))
    assert received() == before + 1  # nobody listens, so the kernel counts what gets through


def test_another_user_through_sudo_and_nobody_else(place: Laptop, tmp_path: Path) -> None:
    before = place.state_text()
    place.start_daemon({"SUDO_UID": "4321", "PYTHONPATH": str(tmp_path), "LD_AUDIT": "/nonexistent.so"})
    code = (
        "import json,socket,sys\nfrom tunnel import control\nfrom tunnel.proto import daemon_pb2 as pb\n"
        "from tunnel.version import VERSION\n"
        "def ask(r):\n  r.version=VERSION\n  s=socket.socket(socket.AF_UNIX);s.settimeout(15);s.connect(sys.argv[1])\n"
        "  try: control.send(s,r)\n  except BrokenPipeError: pass\n"
        "  while (e:=control.receive(s,pb.Event)).WhichOneof('event')=='progress': pass\n  return e\n"
        "e=ask(pb.Request(connect=pb.Connect(environment={'EXAMPLE_HOST':sys.argv[2],'LD_LIBRARY_PATH':'/x'})))\n"
        "print(e.error.text or e.connect.name)\n"
        "print(json.dumps(dict(ask(pb.Request(replace=pb.Replace(workload='whoami'))).replace.environment)))\n"
    )

    def run_as(uid: int) -> list[str]:
        return place.run(
            *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", sys.executable, "-I", "-c", code),
            *(str(place.socket), json.dumps(HOST)),
        ).splitlines()

    known = json.loads(run_as(4321)[1])
    assert (known["uid"], known["gid"], known["groups"]) == ("4321", "4321", "[4321]")
    environment = json.loads(known["environment"])
    assert environment["LD_LIBRARY_PATH"] == "/x"
    assert "SUDO_UID" not in environment
    assert "4322 may not use tpd" in run_as(4322)[0]
    tpd, worker = pids(place)
    root_environment = Path(f"/proc/{tpd}/environ").read_text()
    assert not any(word in root_environment for word in ("PYTHONPATH", "LD_", "EXAMPLE"))
    assert Path(f"/proc/{worker}").stat().st_uid == 4321
    place.ask(pb.Request(quit=pb.Quit(stop_daemon=True)))
    place.daemons[0].wait(10)
    same(before, place.state_text())


def test_the_policy_file_must_be_roots_and_is_obeyed(place: Laptop) -> None:
    place.start_daemon()
    policy = place.folder / "policy.yaml"
    policy.write_text("allowSubnets: [203.0.113.0/24]\n")
    policy.chmod(0o666)
    wish = json.dumps({"subnets": ["203.0.113.0/25"]})
    assert "must belong to root" in place.connect(wish).error.text
    policy.chmod(0o644)
    assert place.connect(wish).connect.name
    assert "dev tp0" in place.run("ip", "route", "get", "203.0.113.9")


def test_a_second_tpd_is_refused_and_a_dead_socket_is_replaced(place: Laptop) -> None:
    daemon = place.start_daemon()
    with pytest.raises(AssertionError, match="runs already"):
        place.run(*place.daemon_arguments("--foreground"))
    daemon.kill()
    daemon.wait(5)
    with pytest.raises(ConnectionRefusedError):
        place.open()
    place.start_daemon()
    place.open().close()


def test_somebody_elses_resolver_file_is_followed_and_kept(place: Laptop) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))
    place.resolv_conf.write_text("nameserver 192.168.77.54\n")
    until(lambda: "198.19.254.2" in place.run("cat", "/etc/resolv.conf"))
    until(lambda: "192.168.77.54" in place.whoami()["upstreams"])
    assert "throw 192.168.77.54" in place.run("ip", "route", "show", "table", "7000")
    place.ask(pb.Request(quit=pb.Quit()))
    assert place.run("cat", "/etc/resolv.conf") == "nameserver 192.168.77.54\n"


def test_the_cli_starts_and_stops_tpd(place: Laptop) -> None:
    before = place.state_text()
    assert "listens" in place.tpctl("daemon", "start")
    assert "runs already" in place.tpctl("daemon", "start")
    assert "Not connected" in place.tpctl("status")
    assert "Stopped tpd" in place.tpctl("quit", "-s")
    assert "not running" in place.tpctl("status")
    same(before, place.state_text())
