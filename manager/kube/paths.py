"""Paths of the API server that the manager uses."""

from __future__ import annotations

TPCTL = "/apis/tpctl.io/v1alpha1"
ENGAGEMENTS = f"{TPCTL}/engagements"
PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"
NAMESPACES = "/api/v1/namespaces"
SERVICE_CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"

WORKLOADS = {
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "ReplicaSet": "replicasets",
}
"""Kinds that can be engaged, and their resources in apps/v1."""


def sessions(namespace: str, name: str = "", subresource: str = "") -> str:
    """Sessions of a namespace, one of them, or its status."""
    return _object(f"{TPCTL}/namespaces/{namespace}/sessions", name, subresource)


def engagements(namespace: str, name: str = "", subresource: str = "") -> str:
    """Engagements of a namespace, one of them, or its status."""
    return _object(f"{TPCTL}/namespaces/{namespace}/engagements", name, subresource)


def pods(namespace: str, name: str = "", subresource: str = "") -> str:
    """Pods of a namespace, one of them, or a subresource."""
    return _object(f"/api/v1/namespaces/{namespace}/pods", name, subresource)


def secrets(namespace: str, name: str) -> str:
    """A Secret."""
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def services(namespace: str, name: str) -> str:
    """A Service."""
    return f"/api/v1/namespaces/{namespace}/services/{name}"


def workload(namespace: str, kind: str, name: str) -> str:
    """A workload of a kind that can be engaged."""
    return f"/apis/apps/v1/namespaces/{namespace}/{WORKLOADS[kind]}/{name}"


def _object(collection: str, name: str, subresource: str) -> str:
    return "/".join(part for part in (collection, name, subresource) if part)
