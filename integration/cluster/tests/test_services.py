"""Waiting for Services, on our own cluster and on one that is given."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.errors import ClusterError
from integration.cluster.external import ExternalCluster
from integration.cluster.services import wait_for_services

pytestmark = [pytest.mark.cluster, pytest.mark.root]

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "echo"},
    "spec": {"selector": {"run": "echo"}, "ports": [{"port": 8080}]},
}


def test_it_returns_when_a_connection_is_accepted(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=json.dumps(SERVICE))
    with pytest.raises(ClusterError, match="8080 accepts no connection"):
        wait_for_services(cluster, namespace, ["echo"], timeout=0.3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_services, cluster, namespace, ["echo"])
        cluster.kubectl("run", f"--namespace={namespace}", "echo", f"--image={cluster.image('test')}")
        waiting.result(30)


def test_another_cluster_is_asked_from_a_pod(cluster: Cluster) -> None:
    prefix = cluster.image("test").rpartition("/")[0]
    stranger = ExternalCluster.attach(config=cluster.admin_kubeconfig, context=None, image_prefix=prefix)
    try:
        wait_for_services(stranger, "default", ["kubernetes"])
        with pytest.raises(ClusterError):
            stranger.python("raise SystemExit(1)")
    finally:
        stranger.down()
