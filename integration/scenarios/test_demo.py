"""`make demo` shows what it promises; on the cluster that runs already."""

from __future__ import annotations

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.external import ExternalCluster
from integration.cluster.laptop import Laptop
from integration.demo import manifests
from integration.demo.__main__ import LAPTOP, main
from integration.scenarios.workloads import new_namespace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_every_step_does_what_it_should(cluster: Cluster, manager: str, capsys: pytest.CaptureFixture[str]) -> None:
    if isinstance(cluster, ExternalCluster):
        pytest.skip("the demo is about the local cluster")
    phase = ("-o", "jsonpath={.status.phase}")
    if cluster.kubectl("get", "namespace", manifests.NAMESPACE, "--ignore-not-found", *phase) == "Active":
        pytest.skip("a demo is there already, perhaps in use; see: make cluster-down")
    new_namespace(cluster, manifests.NAMESPACE)
    try:
        status = main(["--name", cluster.places.name])
        shown = capsys.readouterr().out
        assert status == 0, shown
        for line in ("shop: 3 orders, says my laptop", "job-2 done by my laptop", "the same text as before"):
            assert line in shown
        assert f"make cluster-down CLUSTER={cluster.places.name}" in shown or cluster.places.name == "default"
    finally:
        cluster.kubectl("delete", "namespace", manifests.NAMESPACE, "--ignore-not-found", "--wait=false")
        Laptop.find(cluster, LAPTOP).delete()
