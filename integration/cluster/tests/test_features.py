"""The local cluster is a real one: what the project relies on works in it."""

import json
from collections.abc import Callable

import pytest

from integration.cluster import addresses as at
from integration.cluster.cluster import Cluster
from integration.cluster.commands import wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.tests.manifests import POLICY, WORKLOADS

pytestmark = pytest.mark.cluster


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except ClusterError as error:
        return str(error)
    return ""


def test_workloads_names_and_evictions(cluster: Cluster, namespace: str) -> None:
    def kubectl(*words: str, stdin: str | None = None) -> str:
        return cluster.kubectl("-n", namespace, *words, stdin=stdin)

    kubectl("apply", "-f", "-", stdin=WORKLOADS)
    cluster.wait("job", "job", "Complete", namespace=namespace, timeout=40)
    cluster.wait("pod", "state-0", "Ready", namespace=namespace, timeout=20)
    log = kubectl("logs", "job/job")
    assert '"pod": "state-0"' in log
    assert "UDP says b'ping'" in log
    assert f"service = 0 100 8080 state-0.state.{namespace}.svc.cluster.local" in log
    pod = kubectl("get", "pods", "-l", "app=echo", "-o", "name").strip()
    assert "the original" in kubectl("exec", pod, "--", "wget", "-qO-", "http://127.0.0.1:8080/")

    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "", "namespace": namespace}}

    def evict(name: str) -> None:
        body = json.dumps({**eviction, "metadata": {"name": name, "namespace": namespace}})
        kubectl("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", "-f", "-", stdin=body)

    assert "disruption budget" in refused(lambda: evict("state-0"))
    evict(pod.removeprefix("pod/"))
    cluster.wait("deployment", "echo", "Available", namespace=namespace, timeout=20)


def test_admission_policy_and_subnets(cluster: Cluster, namespace: str) -> None:
    subnets = cluster.kubectl("get", "servicecidrs", "-o", "jsonpath={.items[*].spec.cidrs[*]}")
    assert subnets == at.SERVICES
    assert cluster.kubectl("get", "node", at.NODE_NAME, "-o", "jsonpath={.spec.podCIDR}") == at.PODS_OF_NODE
    cluster.kubectl("apply", "-f", "-", stdin=POLICY.format(name=namespace))

    def create(user: str) -> str:
        words = ("-n", namespace, "create", "configmap", f"of-{user}", f"--from-literal=user={user}")
        return refused(lambda: cluster.kubectl(*words, "--dry-run=server"))

    try:
        wait_for("the policy to refuse", lambda: "not you" in create("mallory"), timeout=10)
        assert not create("admin")
    finally:
        cluster.kubectl("delete", "-f", "-", stdin=POLICY.format(name=namespace))
