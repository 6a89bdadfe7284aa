"""Another cluster, given by a kubeconfig: here the local one, as a stranger sees it."""

import json
import os
from collections.abc import Iterator

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.errors import ClusterError
from integration.cluster.external import ExternalCluster
from integration.cluster.laptop import Laptop
from integration.cluster.places import Places
from tunnel.version import VERSION

_MANAGER = {"app.kubernetes.io/name": "traffic-manager"}

pytestmark = [pytest.mark.cluster, pytest.mark.root]


@pytest.fixture
def stranger(cluster: Cluster) -> Iterator[ExternalCluster]:
    attached = ExternalCluster.attach(
        config=cluster.admin_kubeconfig, context=None, image_prefix="registry.example/tpctl"
    )
    yield attached
    attached.down()


def test_laptops_reach_it(stranger: ExternalCluster) -> None:
    assert stranger.image("agent") == f"registry.example/tpctl/agent:{VERSION}"
    near, far = Laptop.create(stranger, "near"), Laptop.create(stranger, "far", user="alice", groups=["g"], rtt=0.02)
    assert near.run(["kubectl", "get", "nodes", "-o", "name"], check=True).stdout == "node/node-1\n"
    words = ["kubectl", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"]
    assert far.run(words, check=True).stdout == 'alice ["g","system:authenticated"]'
    far.cut()
    assert "refused" in far.run(["kubectl", "get", "--raw", "/readyz"]).stderr
    far.restore()
    assert far.run(["kubectl", "get", "--raw", "/readyz"]).stdout == "ok"


def test_unknown_context_is_said(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="nowhere"):
        ExternalCluster.attach(config=cluster.admin_kubeconfig, context="nowhere", image_prefix="x")
    assert not Places(f"external-{os.getpid()}").root.exists()


def test_a_cluster_with_somebodys_manager_is_refused(stranger: ExternalCluster, namespace: str) -> None:
    """The tests would replace it, and take it away in the end."""
    template = {"metadata": {"labels": _MANAGER}, "spec": {"containers": [{"name": "c", "image": "example/c"}]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "traffic-manager", "labels": _MANAGER},
        "spec": {"replicas": 0, "selector": {"matchLabels": _MANAGER}, "template": template},
    }
    stranger.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(deployment))
    with pytest.raises(ClusterError, match=r"^There is a traffic-manager in namespace \S+ of that cluster already"):
        stranger.refuse_another_manager()
    stranger.kubectl("delete", "-n", namespace, "deployment/traffic-manager", "--wait")
