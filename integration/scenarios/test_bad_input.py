"""What goes wrong is said in one sentence that says what to do, and nothing is left half done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.apps import Apps
from integration.scenarios.conftest import MANAGER_NAMESPACE, RELEASE, UserFactory
from integration.scenarios.user import ERROR, User, eventually
from integration.scenarios.workloads import apply, echo
from tunnel.version import VERSION

pytestmark = pytest.mark.cluster


@pytest.fixture
def user(people: UserFactory) -> User:
    """Somebody whose daemon runs, not connected."""
    someone = people()
    someone.start_daemon()
    return someone


def ours(user: User) -> set[str]:
    """All sessions and engagements in the cluster."""
    uids = ("-o", "jsonpath={.items[*].metadata.uid}")
    return set(user.laptop.cluster.kubectl("get", "sessions.tpctl.io,engagements.tpctl.io", "-A", *uids).split())


@pytest.fixture
def untouched(user: User) -> Iterator[User]:
    """The host must be the same after the test, no connection be left, and nothing new in the cluster."""
    before, objects = user.laptop.host_state(), ours(user)
    yield user
    assert user.json("status")["connections"] == []
    assert user.laptop.host_state() == before
    assert ours(user) <= objects  # of others, some may have ended


def test_no_kubeconfig(untouched: User) -> None:
    assert "--kubeconfig" in untouched.refused("connect", "--kubeconfig", "/nonexistent")


def test_an_unknown_context(untouched: User) -> None:
    assert f"no context 'nope'; it has {untouched.context}" in untouched.refused("connect", "--context", "nope")


def test_an_unreachable_api_server(untouched: User, cluster: Cluster) -> None:
    nobody = cluster.kubeconfig("admin", ["system:masters"], server="https://192.168.57.1:1")
    path = untouched.laptop.write_kubeconfig(nobody, path="/home/dev/nobody")
    said = untouched.refused("connect", "--kubeconfig", path)
    assert "https://192.168.57.1:1" in said
    assert "check the network" in said


def test_a_silent_api_server(untouched: User) -> None:
    untouched.laptop.silence()
    said = untouched.refused("connect")
    untouched.laptop.restore()
    assert "did not answer in time" in said


def test_a_policy_that_has_just_changed(people: UserFactory, cluster: Cluster, demo: str) -> None:
    """The manager refuses what was created before the policy worked; connect tries again by itself."""
    user = people()
    user.start_daemon()
    policy = f"{RELEASE}-{MANAGER_NAMESPACE}-identity"
    cluster.kubectl("annotate", "validatingadmissionpolicy", policy, f"tpctl.io/test={time.time_ns()}", "--overwrite")
    user.connect(demo)
    words = ("-n", MANAGER_NAMESPACE, "get", "sessions", "-o", "jsonpath={.items[*].status.phase}")
    assert "Refused" not in cluster.kubectl(*words)


def test_a_line_that_is_away(people: UserFactory, demo: str) -> None:
    user = people()
    user.connect(demo)
    user.laptop.cut()
    eventually("the loss to be seen", lambda: user.json("status")["connections"][0]["state"] == "reconnecting")
    assert f"connection {user.context}-{demo} is reconnecting" in user.refused("connect", "-n", demo)
    done = user.run("tpctl", "quit")
    user.laptop.restore()
    assert done.stdout.startswith(f"Disconnected {user.context}-{demo}\n  not released in the cluster")
    assert done.returncode == 0


def test_an_unknown_namespace(untouched: User) -> None:
    assert "namespace nowhere does not exist" in untouched.refused("connect", "-n", "nowhere")


def test_a_manager_in_another_namespace(untouched: User, demo: str) -> None:
    said = untouched.refused("connect", "-n", demo, "--manager-namespace", "default")
    assert said == (
        f"no traffic-manager in namespace default, but there is one in {MANAGER_NAMESPACE};"
        f" use --manager-namespace {MANAGER_NAMESPACE}"
    )


def test_a_manager_that_is_not_ready(untouched: User, cluster: Cluster, demo: str, manager: str) -> None:
    cluster.kubectl("scale", "-n", manager, "deployment/traffic-manager", "--replicas=0")
    try:
        said = untouched.refused("connect", "-n", demo)
    finally:
        cluster.kubectl("scale", "-n", manager, "deployment/traffic-manager", "--replicas=1")
        cluster.kubectl("rollout", "status", "-n", manager, "deployment/traffic-manager", "--timeout=60s")
    assert said.startswith(f"the traffic-manager in namespace {manager} is not ready: ")


def test_a_second_manager(untouched: User, cluster: Cluster, manager: str) -> None:
    said = untouched.refused("helm", "install", "-n", "second")
    assert f"there is a traffic-manager in namespace {manager} already" in said
    assert f"tpctl helm uninstall -n {manager}" in said
    assert not cluster.kubectl("get", "namespace", "second", "--ignore-not-found")


def test_no_right_to_connect(people: UserFactory, demo: str, manager: str) -> None:
    stranger = people(user="mallory")
    stranger.start_daemon()
    assert "--manager-namespace" in stranger.refused("connect", "-n", demo)
    said = stranger.refused("connect", "-n", demo, "--manager-namespace", manager)
    assert "mallory" in said
    assert manager in said
    assert stranger.json("status")["connections"] == []


def test_nobody_but_members_may_talk_to_the_daemon(user: User) -> None:
    guest = User(user.laptop, "guest")
    assert "group tpd" in guest.refused("connect")


@pytest.mark.parametrize("command", [("connect",), ("status",), ("list",), ("leave", "echo")])
def test_a_daemon_of_another_version(untouched: User, command: tuple[str, ...]) -> None:
    """The installed commands are of the next release, tpd still runs from before."""
    newer = """
import sys, tunnel.version
tunnel.version.VERSION = "9.9.9"
from cli.main import run
sys.exit(run(sys.argv[1:]))
"""
    done = untouched.run("python3", "-c", newer, *command)
    (said,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert said.startswith(f"{ERROR}tpd is version {VERSION} and tpctl is version 9.9.9; ")
    assert "tpctl quit -s" in said


@pytest.mark.parametrize(
    ("port", "sentence"),
    [("99999", "from 1 to 65535"), ("0:80", "from 1 to 65535"), ("abc", "for example"), ("80:80/icmp", "udp")],
)
def test_ports_that_are_none(person: User, port: str, sentence: str) -> None:
    assert sentence in person.refused("replace", "echo", "--port", port)


def test_a_second_connect_with_other_settings(person: User, demo: str) -> None:
    assert f"namespace {demo}, not default" in person.refused("connect", "-n", "default")
    assert "Already connected" in person.tpctl("connect", "-n", demo)


def test_a_second_connect_with_another_kubeconfig(person: User, demo: str) -> None:
    """Each caller's own kubeconfig counts, not the one of who connected first."""
    document = json.loads(person.laptop.path("/home/dev/.kube/config").read_text())
    document["users"][0]["name"] = document["contexts"][0]["context"]["user"] = "somebody"
    other = {"KUBECONFIG": person.laptop.write_kubeconfig(json.dumps(document), path="/home/dev/other")}
    said = person.refused("connect", "-n", demo, env=other)
    assert "somebody" in said
    assert person.context in said
    missing = {"KUBECONFIG": "/home/dev/missing"}
    assert "/home/dev/missing" in person.refused("connect", "-n", demo, env=missing)
    assert "Already connected" in person.tpctl("connect", "-n", demo)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("replace", "nothere"), "no workload 'nothere' in namespace demo-"),
        (("replace", "pod/echo"), "Deployment, StatefulSet, ReplicaSet, DaemonSet"),
        (("replace", "echo", "-n", "nowhere"), "nowhere"),
        (("list", "-n", "nowhere"), "namespace nowhere does not exist"),
        (("replace", "echo", "--env-file", "/proc/env"), "cannot write /proc/env"),
        (("replace", "coredns", "-n", "kube-system"), "the traffic-manager leaves its namespace alone"),
        (("replace", "traffic-manager", "-n", "tpctl-system"), "the traffic-manager leaves its namespace alone"),
        (("replace", "echo", "--container", "side"), "no container 'side'; it has echo"),
        (("leave", "echo"), "echo"),
        (("status", "--use", "nothing"), "nothing"),
    ],
)
def test_things_that_are_not_there(person: User, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in person.refused(*arguments)


def test_a_container_that_could_be_any_of_several(apps: Apps, people: UserFactory) -> None:
    apps.deploy("several")
    user = people()
    user.connect(apps.namespace)
    said = user.refused("replace", "several")
    assert said == "Deployment several has 2 containers; choose one with --container: app, side"
    assert user.json("status")["connections"][0]["engagements"] == []
    assert apps.containers("several") == ["app", "side"]
    user.tpctl("quit")


def test_what_is_refused_is_an_object_too(person: User) -> None:
    done = person.run("tpctl", "replace", "nothere", "--output", "json")
    assert done.returncode == 1
    assert '"error": "no workload' in done.stdout


def test_a_local_port_that_another_engagement_uses(people: UserFactory, cluster: Cluster, namespace: str) -> None:
    apply(cluster, namespace, [*echo(cluster.image("test"), "one"), *echo(cluster.image("test"), "two")])
    user = people()
    user.connect(namespace)
    user.tpctl("replace", "one", "--port", "9000:8080")
    said = user.refused("replace", "two", "--port", "9000:8080")
    assert "9000" in said
    assert "one" in said
    user.tpctl("replace", "two", "--port", "9001:8080")
    user.tpctl("quit")
