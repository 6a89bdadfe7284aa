"""The daemon on a real host: what it refuses a hostile worker, and who may talk to it about which connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from integration.cluster import addresses as at
from integration.cluster.laptop import Laptop
from integration.cluster.laptop_files import GROUPS
from integration.conftest import LaptopFactory

pytestmark = pytest.mark.cluster

# A worker that asks for what its environment says, and then for what `replace wish --container JSON` says.
WORKER = "tpd.supervisor.tests.example_worker"
SOCKET = "/run/tpd/tpd.sock"

_ASK = """
import contextlib, json, socket, sys
from google.protobuf import json_format
from tunnel import control
from tunnel.proto import daemon_pb2 as pb
from tunnel.version import VERSION
request = json_format.ParseDict(json.loads(sys.argv[1]), pb.Request(version=VERSION))
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(20)
    sock.connect("/run/tpd/tpd.sock")
    with contextlib.suppress(BrokenPipeError):  # it may say no before the request is sent
        control.send(sock, request)
    while (event := control.receive(sock, pb.Event)) is not None:
        if event.WhichOneof("event") != "progress":
            print(json_format.MessageToJson(event))
            break
"""

HONEST: dict[str, Any] = {
    "subnets": [at.SERVICES, at.PODS],
    "bypass": [at.NODE],
    "domains": ["svc", at.CLUSTER_DOMAIN, "demo"],
    "search": [f"demo.svc.{at.CLUSTER_DOMAIN}"],
    "dns": True,
}
# One of each kind: tpd/supervisor/host/tests/test_policy.py has them all.
FORBIDDEN = {
    "subnets": [
        *("0.0.0.0/0", "128.0.0.0/1", "::/0", "8.8.8.0/24", "127.0.0.53/32", "169.254.169.254/32", "224.0.0.0/4"),
        *(at.LAN, f"{at.LAN_RESOLVER}/32", f"{at.LAN_GATEWAY}/32", f"{at.NODE}/32", "::ffff:10.0.0.0/104"),
        *("10.96.0.1/16", "10.0.0.0/8; reboot", "", "x" * 10_000),
    ],
    "domains": [
        *("com", "example", "corp.example", "www.corp.example", "github.com", "localhost", "in-addr.arpa", "."),
        *("a..b", "x" * 300, "a\nnameserver 6.6.6.6", ""),
    ],
    "search": ["com", "corp.example", "svc.evil.com", "a\noptions rotate", ""],
}


def ask(laptop: Laptop, *, by: Sequence[str] = (), user: str = "dev", **command: Any) -> Any:
    """The daemon's final event; `by`: a program that runs the one that asks."""
    done = laptop.run([*by, "python3", "-c", _ASK, json.dumps(command)], user=user, timeout=40)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def place(laptop: LaptopFactory) -> Laptop:
    """A laptop whose tpd starts such workers."""
    made = laptop()
    made.run(["tpd", "--worker", WORKER], user="root", check=True)
    return made


def connect(laptop: Laptop, name: str = "", **wish: Any) -> Any:
    """The final event."""
    return ask(laptop, connect={"name": name, "namespace": "demo", "environment": {"EXAMPLE_HOST": json.dumps(wish)}})


def wish(laptop: Laptop, **wished: Any) -> list[str]:
    """What of it tpd refused."""
    event = ask(laptop, replace={"workload": "wish", "container": json.dumps(wished)})
    refused: list[str] = json.loads(event["replace"]["environment"]["refused"])
    return refused


def test_a_workers_forbidden_routes_and_domains_are_refused(place: Laptop) -> None:
    before = place.host_state()
    assert "connect" in connect(place, **HONEST)
    allowed = place.host_state()
    assert allowed != before
    for field, added in FORBIDDEN.items():
        refused = wish(place, **{**HONEST, field: HONEST[field] + added})
        assert place.host_state() == allowed, "the host is as without them"
        assert len(refused) == len(added), refused
    # Nor does a worker make `com` its own by calling it the connected namespace, which is demo.
    claim = {"domains": [*HONEST["domains"], "com"], "search": [f"com.svc.{at.CLUSTER_DOMAIN}"]}
    assert any("the domain com" in text for text in wish(place, **{**HONEST, **claim}))
    # A wider private subnet never takes the laptop's own network, resolver and gateway with it.
    wish(place, **{**HONEST, "subnets": ["192.168.0.0/16"]})
    for own in (at.NODE, at.LAN_RESOLVER, at.LAN_GATEWAY):
        assert "dev eth0" in place.run(["ip", "route", "get", own]).stdout
    ask(place, quit={})
    assert place.host_state() == before


def test_garbage_from_a_worker_ends_its_connection_only(place: Laptop) -> None:
    before = place.host_state()
    assert "connect" in connect(place, "good", **HONEST)
    good = place.host_state()
    for number, garbage in enumerate(("ffffffff", "00000005ffffffffff", "00400000" + "00" * 100)):
        assert "connect" in connect(place, f"bad{number}", subnets=["10.200.0.0/16"])
        event = ask(place, connection=f"bad{number}", replace={"workload": "garbage", "container": garbage})
        assert "error" in event, event
        names = {each["connection"]["name"]: each["state"] for each in ask(place, status={})["status"]["connections"]}
        assert names["good"] == "connected"
        assert names.get(f"bad{number}") in {None, "failed"}
        assert place.host_state() == good
    assert ask(place, connection="good", replace={"workload": "whoami"})["replace"]["environment"]["uid"] == "2001"
    ask(place, connection="good", quit={})
    assert place.host_state() == before


def test_only_the_group_is_served_and_nobody_sees_or_changes_anothers_connection(place: Laptop) -> None:
    assert "connect" in connect(place, "mine", **HONEST)
    connected = place.host_state()
    # The socket is open to all, so that they are told; whom it serves the kernel's word about the caller decides.
    assert place.run(["stat", "-c", "%U %a", SOCKET]).stdout == "root 666\n"
    about_it: list[dict[str, Any]] = [{"list": {}}, {"replace": {"workload": "whoami"}}, {"leave": {"workload": "x"}}]
    for command in (*about_it, {"quit": {}}, {"status": {}}, {"connect": {"namespace": "demo"}}):
        assert "group tpd" in ask(place, user="guest", **command)["error"]["text"]

    # Somebody else who is of the group.
    member = ["setpriv", "--reuid=4321", "--regid=4321", f"--groups={GROUPS['tpd']}"]
    assert ask(place, by=member, user="root", status={})["status"].get("connections", []) == []
    for command in about_it:
        for name in ("", "mine"):
            refused = ask(place, by=member, user="root", connection=name, **command)
            assert refused["error"]["text"].startswith("not connected"), refused
    assert ask(place, by=member, user="root", quit={})["quit"].get("connections", []) == []
    assert "others are connected" in ask(place, by=member, user="root", quit={"stopDaemon": True})["error"]["text"]
    assert place.host_state() == connected
    (shown,) = ask(place, status={})["status"]["connections"]
    assert (shown["connection"]["name"], shown["state"]) == ("mine", "connected")
