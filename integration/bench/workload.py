"""The workload in the cluster: two Deployments of the server, each behind a Service; one of them gets replaced."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from integration.cluster import images
from integration.cluster.cluster import Cluster
from tunnel.kube.api import Api, from_kubeconfig

NAMESPACE = "tpctl-bench"
STAYS, REPLACED = "bench", "bench-in"
PORT = 8080
_READY_LIMIT = 60.0
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def manifests() -> str:
    """Everything as one JSON list. The server's source comes as a ConfigMap: no image of its own."""
    source = Path(__file__).with_name("server.py").read_text(encoding="utf-8")
    script = f"bench-server-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        _object("v1", "ConfigMap", script, data={"server.py": source}),
    ]
    for name in (STAYS, REPLACED):
        items += [_deployment(name, script), _service(name)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _object(version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **content}


def _deployment(name: str, script: str) -> dict[str, Any]:
    container = {
        "name": "server",
        "image": images.TEST,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/bench/server.py", str(PORT)],
        "ports": [{"name": "bench", "containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "bench", "mountPath": "/bench"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "bench", "configMap": {"name": script}}],
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return _object("apps/v1", "Deployment", name, spec=spec)


def _service(name: str) -> dict[str, Any]:
    ports = [{"name": "bench", "port": PORT, "targetPort": "bench"}]
    return _object("v1", "Service", name, spec={"selector": {"app": name}, "ports": ports})


class Workload:
    """The deployed workload; what an earlier run left is used again. `remove` takes the namespace away."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.kubectl("apply", "-f", "-", stdin=manifests())
        for name in (STAYS, REPLACED):
            self._kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=60s")
        self.address = self._service_address(STAYS)
        self.replaced_address = self._service_address(REPLACED)

    def remove(self) -> None:
        """Delete it; does not wait for the end."""
        self._kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")

    def pod_replacement(self) -> float:
        """Evict the pod of the replaced workload; seconds until its successor is ready and the old one gone."""
        return asyncio.run(self._pod_replacement())

    async def _pod_replacement(self) -> float:
        async with await from_kubeconfig({}, paths=[str(self._cluster.admin_kubeconfig)]) as api:
            old = await self._pods(api)
            started = time.monotonic()
            for name in old:
                await api.create(f"{_PODS}/{name}/eviction", _object("policy/v1", "Eviction", name))
            await self._wait_settled(api, old.keys())
            return time.monotonic() - started

    def wait_original(self) -> None:
        """Wait until exactly one pod is there, and ready."""
        asyncio.run(self._wait_original())

    async def _wait_original(self) -> None:
        async with await from_kubeconfig({}, paths=[str(self._cluster.admin_kubeconfig)]) as api:
            await self._wait_settled(api, ())

    async def _wait_settled(self, api: Api, old: Collection[str]) -> None:
        async with asyncio.timeout(_READY_LIMIT):
            while True:
                pods = await self._pods(api)
                if len(pods) == 1 and all(pods.values()) and not any(name in old for name in pods):
                    return
                await asyncio.sleep(0.02)

    async def _pods(self, api: Api) -> dict[str, bool]:
        """Pods of the replaced workload by name: ready, and not ending."""
        listed = await api.list(_PODS, labelSelector=f"app={REPLACED}")
        return {pod["metadata"]["name"]: _ready(pod) for pod in listed["items"]}

    def _service_address(self, name: str) -> str:
        return self._kubectl("-n", NAMESPACE, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")

    def _kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._cluster.kubectl(*arguments, stdin=stdin)


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
