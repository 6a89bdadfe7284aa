"""The shop's Kubernetes objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NAMESPACE = "shop"
CODE = Path(__file__).with_name("shop.py")
_VARIABLES = {
    "front": {"ORDERS_URL": "http://orders/"},
    "orders": {},
    "queue": {},
    "worker": {"QUEUE_URL": "http://queue.shop"},
}


def shop(image: str) -> list[dict[str, Any]]:
    """Namespace, code and the four programs; `image` needs nothing but python3."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "shop-code", "namespace": NAMESPACE},
            "data": {"shop.py": CODE.read_text(encoding="utf-8")},
        },
    ]
    for name, variables in _VARIABLES.items():
        objects.append(_deployment(name, image, variables))
        if name != "worker":
            objects.append(_service(name))
    return objects


def _deployment(name: str, image: str, variables: dict[str, str]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-u", "/shop/shop.py", name],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "volumeMounts": [{"name": "code", "mountPath": "/shop"}],
    }
    if name != "worker":
        container["ports"] = [{"name": "http", "containerPort": 8080}]
        container["readinessProbe"] = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [container],
                    "volumes": [{"name": "code", "configMap": {"name": "shop-code"}}],
                },
            },
        },
    }


def _service(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
