"""Pure. Paths of the API's resources that the worker uses."""

from __future__ import annotations

GROUP = "tpctl.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
NAMESPACES = "/api/v1/namespaces"
SERVICES = "/api/v1/services"
ALL_PODS = "/api/v1/pods"
ALL_ENGAGEMENTS = f"/apis/{API_VERSION}/engagements"

MANAGER_NAME = "traffic-manager"
MANAGER_LABELS = "app.kubernetes.io/name=traffic-manager,app.kubernetes.io/part-of=tpctl"
MANAGER_NAMESPACE = "tpctl-system"
"""Where `tpctl helm install` puts it unless told otherwise."""
SESSIONS_PORT = 8443

WORKLOADS = {
    "Deployment": "deployments",
    "StatefulSet": "statefulsets",
    "ReplicaSet": "replicasets",
    "DaemonSet": "daemonsets",
}
"""Kinds of workloads that can be engaged, and their resources in apps/v1, in order of look-up."""


def sessions(namespace: str, name: str = "") -> str:
    """Session objects of a manager's namespace."""
    return _join(f"/apis/{API_VERSION}/namespaces/{namespace}/sessions", name)


def engagements(namespace: str, name: str = "") -> str:
    """Engagement objects of a workload's namespace."""
    return _join(f"/apis/{API_VERSION}/namespaces/{namespace}/engagements", name)


def pods(namespace: str, name: str = "") -> str:
    """Pods."""
    return _join(f"/api/v1/namespaces/{namespace}/pods", name)


def services(namespace: str, name: str = "") -> str:
    """Services."""
    return _join(f"/api/v1/namespaces/{namespace}/services", name)


def workloads(kind: str, namespace: str, name: str = "") -> str:
    """Workloads of one kind (a key of WORKLOADS)."""
    return _join(f"/apis/apps/v1/namespaces/{namespace}/{WORKLOADS[kind]}", name)


def _join(collection: str, name: str) -> str:
    return f"{collection}/{name}" if name else collection
