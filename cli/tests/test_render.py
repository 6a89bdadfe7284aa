"""Golden texts: objects in, text out."""

from __future__ import annotations

import json

import pytest
import yaml

from cli import render
from cli.output import as_dict, structured
from tunnel.proto import daemon_pb2 as pb

CONNECTION = pb.ConnectResult(
    name="kind-demo",
    context="kind",
    namespace="demo",
    server="https://127.0.0.1:6443",
    manager_namespace="tpctl-system",
    manager_version="0.1.0",
    user="alice",
    device="tp0",
    subnets=["10.96.0.0/12", "10.244.0.0/16"],
    dns_address="198.19.254.2",
)
ENGAGEMENT = pb.EngagementStatus(
    uid="u",
    mode="Replace",
    workload="deployment/echo",
    namespace="demo",
    container="app",
    ports=[
        pb.PortMapping(local=8080, container=80, protocol="TCP"),
        pb.PortMapping(local=53, container=53, protocol="UDP"),
    ],
    phase="Active",
    pods=["echo-1"],
)


def test_connected() -> None:
    assert render.connected(CONNECTION) == "Connected to context kind, namespace demo (https://127.0.0.1:6443)"
    again = pb.ConnectResult()
    again.CopyFrom(CONNECTION)
    again.existed = True
    assert render.connected(again).startswith("Already connected to context kind")
    again.left_alone.append("10.96.0.0/12 is already routed to wg0")
    assert render.connected(again).endswith("\n  left alone: 10.96.0.0/12 is already routed to wg0")
    status = render.status(pb.StatusResult(connections=[pb.ConnectionStatus(connection=again)]))
    assert "Left alone : 10.96.0.0/12 is already routed to wg0\n" in status


def test_status() -> None:
    status = pb.StatusResult(
        version="0.1.0",
        pid=7,
        connections=[
            pb.ConnectionStatus(
                connection=CONNECTION,
                state="reconnecting",
                reason="the line is silent",
                dns_domains=["svc", "cluster.local"],
                resolver="systemd-resolved",
                engagements=[ENGAGEMENT],
                flows=3,
                worker_pid=8,
                bytes_sent=1023,
                bytes_received=5 * 1024 * 1024,
            )
        ],
    )
    assert (
        render.status(status)
        == """\
Daemon : running, version 0.1.0, pid 7
Connection kind-demo
  State     : reconnecting (the line is silent)
  Context   : kind
  Server    : https://127.0.0.1:6443
  Namespace : demo
  User      : alice
  Manager   : namespace tpctl-system, version 0.1.0
  Device    : tp0
  Subnets   : 10.96.0.0/12, 10.244.0.0/16
  DNS       : 198.19.254.2 through systemd-resolved
  Domains   : svc, cluster.local
  Flows     : 3
  Traffic   : 1023 B sent, 5.0 MiB received
  Worker    : pid 8
  Engagement deployment/echo
    Workload  : deployment/echo (namespace demo)
    Container : app
    Mode      : Replace
    State     : ACTIVE
    Ports     : 80 -> 127.0.0.1:8080, 53/udp -> 127.0.0.1:53
    Pods      : echo-1"""
    )


def test_status_of_a_cluster_with_hundreds_of_namespaces() -> None:
    names = [f"ns{number}" for number in range(300)]
    result = pb.StatusResult(connections=[pb.ConnectionStatus(connection=CONNECTION, dns_domains=names)])
    assert "ns10, ns11 and 288 more\n" in render.status(result)


def test_status_without_connections() -> None:
    assert render.status(pb.StatusResult(version="1", pid=2)).endswith("\nNot connected; run: tpctl connect")


def test_workloads() -> None:
    result = pb.ListResult(
        workloads=[
            pb.Workload(kind="StatefulSet", name="db", namespace="demo", containers=["db"], state="ready to engage"),
            pb.Workload(
                kind="Deployment", name="api", namespace="demo", containers=["api", "log"], state="replaced by you"
            ),
            pb.Workload(kind="Job", name="once", namespace="demo", state="not engageable", reason="it has no pods"),
        ]
    )
    assert (
        render.workloads(result)
        == """\
WORKLOAD         NAMESPACE   CONTAINERS   STATE
deployment/api   demo        api,log      replaced by you
statefulset/db   demo        db           ready to engage
job/once         demo                     not engageable: it has no pods"""
    )
    assert render.workloads(pb.ListResult()) == "No workloads in the connected namespace"
    assert render.workloads(pb.ListResult(), "shop") == "No workloads in namespace shop"


def test_replaced_and_left() -> None:
    assert (
        render.replaced(pb.ReplaceResult(engagement=ENGAGEMENT))
        == """\
Replaced container app of deployment/echo in namespace demo
  80 -> 127.0.0.1:8080
  53/udp -> 127.0.0.1:53"""
    )
    bare = pb.EngagementStatus(workload="deployment/worker", container="app", namespace="demo")
    assert render.replaced(pb.ReplaceResult(engagement=bare)).endswith("; no ports are routed")
    left = "Left container app of deployment/echo in namespace demo; "
    assert render.left(pb.LeaveResult(left=[ENGAGEMENT])) == left + "the original is back"
    late = pb.EngagementStatus(workload="deployment/echo", container="app", namespace="demo", reason="it takes long")
    assert render.left(pb.LeaveResult(left=[late])) == left + "it takes long"


def test_quit_and_version() -> None:
    assert (
        render.quit_(pb.QuitResult(connections=["a", "b"]), stopped=True)
        == "Disconnected a\nDisconnected b\nStopped tpd"
    )
    assert render.quit_(pb.QuitResult(), stopped=False) == "Not connected"
    left = render.quit_(pb.QuitResult(connections=["a"], not_released=["the session: no answer"]), stopped=False)
    assert left == "Disconnected a\n  not released in the cluster, where its lease ends it: the session: no answer"
    assert render.version("0.1.0", "", {}) == "Client : 0.1.0\nDaemon : not running"
    assert "Manager (kind-demo) : 0.1.0" in render.version("0.1.0", "0.1.0", {"kind-demo": "0.1.0"})


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (1 << 45, "32768.0 GiB")]
)
def test_size(count: int, text: str) -> None:
    assert render.size(count) == text


def test_every_field_is_in_the_object() -> None:
    value = as_dict(pb.StatusResult(connections=[pb.ConnectionStatus(engagements=[ENGAGEMENT], bytes_sent=1 << 40)]))
    (one,) = value["connections"]
    assert one["bytes_sent"] == 1 << 40
    assert one["connection"]["subnets"] == []
    assert one["engagements"][0]["ports"][0]["local"] == 8080
    assert as_dict(pb.Error(category=pb.CLUSTER))["category"] == "CLUSTER"
    assert as_dict(pb.ReplaceResult(environment={"B": "2", "A": "1"}))["environment"] == {"A": "1", "B": "2"}
    assert json.loads(structured(value, "json")) == value
    assert yaml.safe_load(structured(value, "yaml")) == value
