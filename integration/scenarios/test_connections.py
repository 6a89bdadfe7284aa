"""Connecting: twice, again, elsewhere, by name, for one command; and what there is then."""

from __future__ import annotations

import json
import re

import pytest

from integration.scenarios.apps import Apps
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User

pytestmark = pytest.mark.cluster

CONFIG = "/home/dev/.kube/config"


def test_quit_and_connect_again(people: UserFactory, demo: str) -> None:
    user = people()
    user.start_daemon()
    before = user.laptop.host_state()
    devices = []
    for _ in range(2):
        result = user.json("connect", "-n", demo)
        devices.append(result["device"])
        assert not result.get("existed")
        assert user.curl("http://echo/healthz") == "ok\n"
        user.tpctl("quit")
        assert user.json("status")["connections"] == []
        assert user.laptop.host_state() == before
    assert devices[0] == devices[1]


def test_the_same_connect_twice_changes_nothing(people: UserFactory, demo: str) -> None:
    user = people()
    user.connect(demo)
    status, host = user.json("status")["connections"][0], user.laptop.host_state()
    again = user.json("connect", "-n", demo)
    assert again["existed"] is True
    assert again["device"] == status["connection"]["device"]
    after = user.json("status")["connections"]
    assert [each["worker_pid"] for each in after] == [status["worker_pid"]]
    assert user.laptop.host_state() == host
    assert len(user.laptop.processes()) == 2  # tpd and one worker
    assert user.curl("http://echo/healthz") == "ok\n"


def test_another_context_and_a_named_manager(people: UserFactory, demo: str, manager: str) -> None:
    user = people()
    document = json.loads(user.laptop.path(CONFIG).read_text())
    context = user.context
    (cluster_user,) = (each["name"] for each in document["users"])
    nowhere = {"name": "nowhere", "cluster": {"server": "https://192.168.57.1:1"}}
    document["clusters"].append(nowhere)
    document["contexts"].append({"name": "nowhere", "context": {"cluster": "nowhere", "user": cluster_user}})
    document["current-context"] = "nowhere"
    user.laptop.write_kubeconfig(json.dumps(document))
    user.connect(demo, "--context", context, "--manager-namespace", manager)
    about = user.json("status")["connections"][0]["connection"]
    assert (about["context"], about["namespace"], about["manager_namespace"]) == (context, demo, manager)
    assert user.curl("http://echo/healthz") == "ok\n"
    user.tpctl("quit")


def test_a_connection_has_the_name_that_it_is_given(people: UserFactory, demo: str) -> None:
    user = people()
    user.connect(demo, "--name", "work")
    (connection,) = user.json("status", "--use", "work")["connections"]
    assert connection["connection"]["name"] == "work"
    assert "there is no connection" in user.refused("list", "--use", "play")
    assert user.tpctl("quit").startswith("Disconnected work")
    assert user.json("status")["connections"] == []


def test_connected_only_while_a_command_runs(people: UserFactory, demo: str) -> None:
    user = people()
    user.start_daemon()
    before = user.laptop.host_state()
    script = "curl -sS --fail --max-time 10 http://echo/healthz; exit 5"
    done = user.run("tpctl", "connect", "-n", demo, "--", "sh", "-c", script, timeout=60)
    assert (done.returncode, done.stdout) == (5, "ok\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert user.json("status")["connections"] == []
    assert user.laptop.host_state() == before


def test_the_list_says_what_can_be_engaged_and_who_has_it(apps: Apps, people: UserFactory) -> None:
    apps.deploy("first", ports=[{"name": "http", "containerPort": 8080}])
    apps.deploy("second")
    apps.kubectl("scale", "deployment/second", "--replicas=0")
    user, other = people(), people()
    for each in (user, other):
        each.connect(apps.namespace)

    def listed(user: User) -> dict[str, tuple[str, str, list[str]]]:
        found = user.json("list")["workloads"]
        return {each["name"]: (each["state"], each["reason"], each["containers"]) for each in found}

    both = ["app", "side"]
    second = ("not engageable", "it is scaled to 0 replicas", both)
    assert listed(user) == {"first": ("ready to engage", "", both), "second": second}
    user.tpctl("replace", "first", "-c", "app")
    assert listed(user) == {"first": ("app replaced by you", "", both), "second": second}
    assert re.fullmatch(r"app replaced by \S+ since 20\S+", listed(other)["first"][0])
    rows = [line.split()[:3] for line in user.tpctl("list").splitlines()]
    assert rows[0] == ["WORKLOAD", "NAMESPACE", "CONTAINERS"]
    assert rows[1] == ["deployment/first", apps.namespace, "app,side"]
    for each in (user, other):
        each.tpctl("quit")
