"""Replacing a container: the original is gone, its calls and its environment come to the laptop, and it comes back."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from integration.scenarios.apps import LAPTOP, ORIGINAL, Apps, serving
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import eventually

pytestmark = pytest.mark.cluster

PORTS = [
    {"name": "http", "containerPort": 8080},
    {"name": "echo", "containerPort": 7007},
    {"name": "echo-udp", "containerPort": 7007, "protocol": "UDP"},
]
PROBE = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}


def test_calls_and_environment_come_to_the_laptop(apps: Apps, namespace: str, people: UserFactory) -> None:
    apps.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings"},
            "data": {"COLOUR": "blue", "RAW": "$(GREETING)"},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": "s3cret$(X)"}},
    )
    apps.deploy(
        "echo",
        ports=PORTS,
        envFrom=[{"configMapRef": {"name": "settings"}}, {"prefix": "DB_", "secretRef": {"name": "db"}}],
        env=[
            {"name": "GREETING", "value": "hello $(COLOUR)"},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "URL", "value": "http://$(ECHO_SERVICE_HOST)/$(GREETING)/$(PASSWORD)/$$(GREETING)/$(LATER)"},
            {"name": "LATER", "value": "x"},
        ],
        readinessProbe=PROBE,
    )
    work = people()
    work.connect(namespace)
    assert apps.get("http://echo:8080/").answer == ORIGINAL

    # Without --port every declared port comes to the same port here.
    work.tpctl("replace", "echo", "--env-json", "/home/dev/env.json", "--env-file", "/home/dev/env", "-c", "app")
    assert apps.containers("echo") == ["traffic-agent", "side"]
    with serving(work):
        apps.answers("http://echo:8080/", LAPTOP)
        assert apps.echo("tcp", "echo", 7007, "over TCP") == "over TCP"
        assert apps.echo("udp", "echo", 7007, "over UDP") == "over UDP"

    pod = apps.pod("echo")
    service = apps.kubectl("get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}")
    environment = json.loads(work.laptop.path("/home/dev/env.json").read_text())
    expected = {
        "COLOUR": "blue",
        "RAW": "$(GREETING)",
        "DB_password": "s3cret$(X)",
        "PASSWORD": "s3cret$(X)",
        "GREETING": "hello blue",
        "POD": pod["metadata"]["name"],
        "URL": f"http://{service}/hello blue/s3cret$(X)/$(GREETING)/$(LATER)",
        "LATER": "x",
        "ECHO_SERVICE_HOST": service,
    }
    assert {name: environment.get(name) for name in expected} == expected
    assert not {"PATH", "HOME", "HOSTNAME", "AGENT_CONFIG", "MANAGER_ROOT"} & environment.keys()
    assert "GREETING=hello blue\n" in work.laptop.path("/home/dev/env").read_text()

    work.tpctl("leave", "echo")
    apps.answers("http://echo:8080/", ORIGINAL)
    assert apps.containers("echo") == ["app", "side"]


def test_where_nobody_listens_the_caller_is_reset_and_no_probe_kills_the_pod(
    apps: Apps, namespace: str, people: UserFactory
) -> None:
    apps.deploy("echo", ports=PORTS, livenessProbe=PROBE, readinessProbe=PROBE)
    work = people()
    work.connect(namespace)
    work.tpctl("replace", "echo", "-c", "app", "--port", "18080:8080")
    pod = apps.pod("echo")
    apps.kubectl("wait", "--for=condition=Ready", f"pod/{pod['metadata']['name']}", "--timeout=20s")

    call = apps.get("http://echo:8080/")
    assert call.error == "ConnectionResetError"
    assert call.seconds < 1
    assert apps.get(f"http://{pod['status']['podIP']}:7007/").error == "ConnectionRefusedError"  # not engaged

    time.sleep(4)  # as many liveness probes as would have killed the original four times
    after = apps.pod("echo")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"]
    assert [status["restartCount"] for status in after["status"]["containerStatuses"]] == [0, 0]

    work.tpctl("quit")
    apps.answers("http://echo:8080/", ORIGINAL)


def test_an_engagement_that_somebody_deletes(apps: Apps, namespace: str, people: UserFactory) -> None:
    apps.deploy("worker")
    work = people()
    work.connect(namespace)
    work.tpctl("replace", "worker", "-c", "app")
    apps.kubectl("delete", "engagements.tpctl.io", "--all")
    eventually("the status to say so", lambda: "somebody deleted it in the cluster" in work.tpctl("status"))

    # Its place is free, and a command that runs in it ends with it.
    argv = ["tpctl", "replace", "worker", "-c", "app", "--", "sh", "-c", "echo runs; exec sleep 600"]
    with work.laptop.popen(argv, user="dev", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        assert running.stdout is not None
        said = next(line for line in running.stdout if line == "runs\n")
        apps.kubectl("delete", "engagements.tpctl.io", "--all")
        said = running.stdout.read()
        assert running.wait(10) == 1
    assert "somebody deleted it in the cluster" in said.splitlines()[-1]
    assert work.json("status")["connections"][0]["engagements"] == []
    assert apps.containers("worker") == ["app", "side"]


def test_a_container_without_ports_and_a_command_as_handler(apps: Apps, namespace: str, people: UserFactory) -> None:
    apps.deploy("worker", env=[{"name": "QUEUE", "value": "http://queue/"}, {"name": "COPY", "value": "$(QUEUE)x"}])
    work = people()
    work.connect(namespace)

    done = work.run("tpctl", "replace", "worker", "-c", "app", "--", "sh", "-c", 'echo "$COPY"; exit 7', timeout=60)
    assert done.returncode == 7
    assert "http://queue/x" in done.stdout.splitlines()
    assert apps.containers("worker") == ["app", "side"]

    said = work.tpctl("replace", "worker", "-c", "app")
    assert "no ports are routed" in said
    assert apps.containers("worker") == ["traffic-agent", "side"]
    address = apps.pod("worker")["status"]["podIP"]
    assert apps.get(f"http://{address}:8080/").error == "ConnectionRefusedError"
    work.tpctl("leave", "worker")
    assert apps.containers("worker") == ["app", "side"]
