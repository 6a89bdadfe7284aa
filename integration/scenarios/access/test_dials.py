"""What a session asks the manager to dial: anything in the cluster, but never metadata, loopback or the manager."""

from __future__ import annotations

import json

import dns.message
import dns.rdatatype
import pytest

from integration.cluster.errors import ClusterError
from integration.scenarios.access.stage import Stage
from integration.scenarios.user import eventually
from integration.scenarios.workloads import get

pytestmark = pytest.mark.cluster

METADATA = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254")
LOOPBACK = ("127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "::1", "::")
OTHER = ("169.254.0.1", "fe80::1", "224.0.0.251", "ff02::fb", "255.255.255.255")
DISGUISED = (
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::127.0.0.1"),
    *("64:ff9b::169.254.169.254", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
)
PORTS = (8443, 8444, 8445, 8446)
"""The manager's own."""


def manager_addresses(stage: Stage) -> tuple[str, str]:
    """Its pod's and its Service's."""
    service = get(stage.cluster, "service", "traffic-manager", "-n", stage.manager)
    return stage.manager_pod()["status"]["podIP"], service["spec"]["clusterIP"]


def test_the_manager_refuses_what_it_must_not_dial(stage: Stage) -> None:
    own = manager_addresses(stage)
    never = [*METADATA, *LOOPBACK, *OTHER, *DISGUISED, *own, *(f"::ffff:{address}" for address in own)]
    dials = [(transport, address, 8446) for address in never for transport in ("TCP", "UDP")]
    service = get(stage.cluster, "service", "plain", "-n", stage.namespace)["spec"]["clusterIP"]
    pod = stage.apps.pod("plain")["status"]["podIP"]
    allowed = [("TCP", service, 8080), ("TCP", pod, 8080), ("TCP", f"::ffff:{pod}", 8080)]
    attempt = stage.idle.attempt("link", dials=[*dials, *allowed])
    (outcome,) = stage.ways["forward"].attempts(stage.manager_peer(), [attempt])
    got = {tuple(dial): each["code"] for dial, each in zip([*dials, *allowed], outcome["opens"], strict=True)}
    assert {dial: code for dial, code in got.items() if dial in dials and code != "PROHIBITED"} == {}
    assert [got[dial] for dial in allowed] == ["OPENED"] * 3


def test_the_manager_opens_nothing_for_a_body_that_is_no_dial(stage: Stage) -> None:
    bodies = [
        *("", "00", "ff" * 40, "0a" * 4096),
        "0a0a" + "0801" + "1204" + "0a600001" + "1800",  # port 0
        "0a0c" + "0801" + "1204" + "0a600001" + "18f0a204",  # port 70000
        "0a07" + "0801" + "1203" + "0a6000",  # an address of three bytes
        "0a0b" + "0800" + "1204" + "0a600001" + "18bb03",  # neither TCP nor UDP
    ]
    attempt = stage.idle.attempt("link", bodies=bodies, inbound=[(stage.uid("app"), 8080)])
    (outcome,) = stage.ways["forward"].attempts(stage.manager_peer(), [attempt])
    assert [each["code"] for each in outcome["opens"]] == ["PROHIBITED"] * (len(bodies) + 1)


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1"])
def test_a_name_of_the_cluster_for_a_forbidden_address_does_not_lead_there(stage: Stage, address: str) -> None:
    """CoreDNS answers such names for any address."""
    name = f"{address.replace('.', '-')}.{stage.namespace}.pod.cluster.local."
    query = dns.message.make_query(name, dns.rdatatype.A)
    attempt = stage.idle.attempt("link", query=query.to_wire().hex())
    (outcome,) = stage.ways["forward"].attempts(stage.manager_peer(), [attempt])
    answer = dns.message.from_wire(bytes.fromhex(outcome["answer"]))
    found = [record.to_text() for rrset in answer.answer for record in rrset]
    assert found == [address]
    attempt = stage.idle.attempt("link", dials=[("TCP", each, 80) for each in found])
    (outcome,) = stage.ways["forward"].attempts(stage.manager_peer(), [attempt])
    assert [each["code"] for each in outcome["opens"]] == ["PROHIBITED"]


def test_no_name_leads_to_the_manager_itself(stage: Stage) -> None:
    """By its own name, and by a Service that somebody made for its address."""
    pod, _ = manager_addresses(stage)
    meta = {"name": "innocent", "labels": {"kubernetes.io/service-name": "innocent"}}
    port = {"name": "web", "port": 8446, "protocol": "TCP"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": "None", "ports": [port]}}
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": "IPv4",
        "endpoints": [{"addresses": [pod], "conditions": {"ready": True}}],
        "ports": [port],
    }
    stage.apps.apply(service, endpoints)
    eventually("the name", lambda: pod in stage.mallory.run("getent", "ahostsv4", "innocent").stdout)
    itself = ["innocent:8446", f"traffic-manager.{stage.manager}:443", *(f"{pod}:{port}" for port in PORTS)]
    outcomes = [how for how, _ in stage.mallory.dial("plain:8080", *itself, "plain:8080")]
    assert outcomes == ["OPENED", *["EHOSTUNREACH"] * len(itself), "OPENED"]
    # Kubernetes itself lets nobody put metadata services or loopback behind a Service.
    for address in ("169.254.169.254", "127.0.0.1"):
        bad = {**endpoints, "metadata": {"name": "worse"}, "endpoints": [{"addresses": [address]}]}
        with pytest.raises(ClusterError, match="may not be in the"):
            stage.apps.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(bad))
