"""Choosing workload and container, and describing them."""

from __future__ import annotations

from typing import Any

import pytest

from tpd.session.engagements.workload import choose_container, describe, is_owned, split, unknown, why_not
from tpd.session.errors import SessionError


def workload(*names: str, **pod: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "orders"},
        "spec": {"template": {"spec": {"containers": [{"name": name} for name in names], **pod}}},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", ("", "orders")),
        ("deployment/orders", ("Deployment", "orders")),
        ("deploy/orders", ("Deployment", "orders")),
        ("StatefulSets/db", ("StatefulSet", "db")),
        ("sts/db", ("StatefulSet", "db")),
        ("ds/agent", ("DaemonSet", "agent")),
        ("rs/old", ("ReplicaSet", "old")),
    ],
)
def test_split(text: str, expected: tuple[str, str]) -> None:
    assert split(text) == expected


def test_split_refuses_what_cannot_be_replaced() -> None:
    with pytest.raises(SessionError, match="Deployment, StatefulSet"):
        split("job/once")
    with pytest.raises(SessionError, match="name a workload"):
        split("deployment/")


def test_the_only_container_needs_no_name() -> None:
    assert choose_container(workload("app"), "")["name"] == "app"
    assert choose_container(workload("app", "traffic-agent"), "")["name"] == "app"


def test_ambiguous_or_unknown_containers_are_listed() -> None:
    with pytest.raises(SessionError, match="has 2 containers; choose one with --container: app, proxy"):
        choose_container(workload("app", "proxy"), "")
    with pytest.raises(SessionError, match="no container 'ap'; it has app, proxy"):
        choose_container(workload("app", "proxy"), "ap")
    with pytest.raises(SessionError, match="no container 'traffic-agent'"):
        choose_container(workload("app", "traffic-agent"), "traffic-agent")


def test_why_not() -> None:
    assert why_not(workload("app"), "tpctl-system") == ""
    assert "host's network" in why_not(workload("app", hostNetwork=True), "tpctl-system")
    scaled = workload("app")
    scaled["spec"]["replicas"] = 0
    assert "0 replicas" in why_not(scaled, "tpctl-system")
    for namespace in ("kube-system", "tpctl-system"):
        there = workload("app")
        there["metadata"]["namespace"] = namespace
        assert "leaves its namespace alone" in why_not(there, "tpctl-system")


def test_unknown_names_what_looks_like_it() -> None:
    assert "; there is orders-api" in unknown("orders", "shop", ["orders-api", "front"]).text
    assert "; there is back, front" in unknown("orders", "shop", ["front", "back"]).text
    assert "it has no workloads" in unknown("orders", "shop", []).text


def test_describe_says_who_holds_it_since_when() -> None:
    held = {
        "spec": {"user": "alice", "container": "app", "session": {"uid": "s1"}},
        "status": {"acceptedAt": "2026-01-02T03:04:05Z"},
    }
    assert describe(["app"], [], "s2", "") == ("ready to engage", "")
    assert describe(["app"], [], "s2", "why") == ("not engageable", "why")
    assert describe(["app"], [held], "s1", "") == ("replaced by you", "")
    assert describe(["app", "b"], [held], "s2", "")[0] == "app replaced by alice since 2026-01-02T03:04:05Z"


def test_replica_sets_of_deployments_are_owned() -> None:
    assert is_owned({"metadata": {"ownerReferences": [{"kind": "Deployment", "controller": True}]}})
    assert not is_owned({"metadata": {}})
