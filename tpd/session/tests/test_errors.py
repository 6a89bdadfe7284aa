"""Each failure is one sentence that says what to do."""

from __future__ import annotations

import pytest

from tpd.session.errors import from_kube, no_manager_in
from tunnel.kube.errors import ApiError, KubeconfigError, KubeError, Unreachable
from tunnel.proto import daemon_pb2

RBAC = (
    'sessions.tpctl.io is forbidden: User "bob" cannot create resource "sessions" in API group "tpctl.io"'
    ' in the namespace "tpctl-system"'
)
CLUSTER_WIDE = 'services is forbidden: User "bob" cannot list resource "services" in API group "" at the cluster scope'


@pytest.mark.parametrize(
    ("error", "says", "category"),
    [
        (KubeconfigError("no kubeconfig at /x"), "no kubeconfig at /x", daemon_pb2.CONFIG),
        (Unreachable("the API server h cannot be reached: refused"), "check the network", daemon_pb2.CLUSTER),
        (ApiError(401, "Unauthorized", "Unauthorized"), "log in again", daemon_pb2.CONFIG),
        (
            ApiError(403, "Forbidden", RBAC),
            "doing it is not permitted: user bob may not create sessions.tpctl.io in namespace tpctl-system",
            daemon_pb2.CLUSTER,
        ),
        (
            ApiError(403, "Forbidden", CLUSTER_WIDE),
            "user bob may not list services in the whole cluster",
            daemon_pb2.CLUSTER,
        ),
        (ApiError(403, "Forbidden", RBAC.replace("bob", "system:anonymous")), "log in again", daemon_pb2.CONFIG),
        (ApiError(403, "Forbidden", "policy says\nno"), "refused doing it: policy says no", daemon_pb2.CLUSTER),
        (ApiError(500, "InternalError", "etcd is away"), "doing it failed: etcd is away", daemon_pb2.CLUSTER),
        (KubeError("not JSON"), "doing it failed: not JSON", daemon_pb2.CLUSTER),
    ],
)
def test_from_kube(error: KubeError, says: str, category: int) -> None:
    found = from_kube(error, "doing it")
    assert says in found.text
    assert found.category == category
    assert "\n" not in found.text


def test_a_manager_elsewhere_is_named() -> None:
    assert "--manager-namespace ops" in no_manager_in("here", ["ops"]).text
    assert "helm install" in no_manager_in("here", []).text
