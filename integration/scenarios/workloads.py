"""Deployments that scenarios use: the echo server of the test image."""

from __future__ import annotations

import json
from typing import Any

from integration.cluster.cluster import Cluster
from integration.cluster.services import wait_for_services

HTTP, ECHO, BULK = 8080, 7007, 7008


def echo(
    image: str,
    name: str = "echo",
    *,
    replicas: int = 1,
    ports: bool = True,
    env: list[dict[str, Any]] | None = None,
    env_from: list[dict[str, Any]] | None = None,
    **container: Any,
) -> list[dict[str, Any]]:
    """A Deployment of `/workloads/echo.py` and its Services: `name` (port 80 and the others) and `name-headless`."""
    spec: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/workloads/echo.py"],
        "env": env or [],
        "envFrom": env_from or [],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": HTTP}, "periodSeconds": 1},
        **container,
    }
    if ports:
        spec["ports"] = [
            {"name": "http", "containerPort": HTTP},
            {"name": "echo", "containerPort": ECHO},
            {"name": "echo-udp", "containerPort": ECHO, "protocol": "UDP"},
            {"name": "bulk", "containerPort": BULK},
        ]
    service_ports = [
        {"name": "http", "port": 80, "targetPort": HTTP},
        {"name": "echo", "port": ECHO},
        {"name": "echo-udp", "port": ECHO, "protocol": "UDP"},
        {"name": "bulk", "port": BULK},
    ]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [spec]},
                },
            },
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": service},
                "spec": {"selector": {"app": name}, "ports": service_ports, **extra},
            }
            for service, extra in ((name, {}), (f"{name}-headless", {"clusterIP": "None"}))
        ),
    ]


def new_namespace(cluster: Cluster, name: str) -> None:
    """Create a namespace that must not be there, though one of an earlier test may be on its way out."""
    if cluster.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "jsonpath={.status.phase}"):
        cluster.kubectl("wait", "--for=delete", f"namespace/{name}", "--timeout=60s")
    cluster.kubectl("create", "namespace", name)


def apply(cluster: Cluster, namespace: str, objects: list[dict[str, Any]]) -> None:
    """Create or update the objects, wait until their Deployments are rolled out and their Services lead there."""
    cluster.kubectl(
        "apply", "-n", namespace, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )
    for each in objects:
        if each["kind"] == "Deployment":
            rolled_out(cluster, namespace, each["metadata"]["name"])
    wait_for_services(cluster, namespace, [each["metadata"]["name"] for each in objects if each["kind"] == "Service"])


def rolled_out(cluster: Cluster, namespace: str, name: str) -> None:
    """Wait until the Deployment has the pods it wants."""
    cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=60s")


def get(cluster: Cluster, *words: str) -> Any:
    """`kubectl get … -o json`."""
    return json.loads(cluster.kubectl("get", *words, "-o", "json"))
