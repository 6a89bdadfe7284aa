"""What the host is asked for."""

from __future__ import annotations

from tpd.session.dns.names import names_of
from tpd.session.subnets import host_config, subnets_of
from tunnel.proto import manager_pb2


def test_subnets_are_collapsed_per_family() -> None:
    cluster = manager_pb2.Cluster(
        service_subnets=["10.96.0.0/16", "fd00::/112"], pod_subnets=["10.96.5.0/24", "10.244.1.0/24", "10.244.0.0/24"]
    )
    assert subnets_of(cluster) == ["10.96.0.0/16", "10.244.0.0/23", "fd00::/112"]


def test_host_config() -> None:
    names = names_of(
        connected="demo",
        managed=["demo", "ops"],
        mapped=[],
        cluster_domain="cluster.local",
        subnets=["10.96.0.0/16"],
        host_search=[],
        taken=lambda label: False,
    )
    config = host_config(["10.96.0.0/16"], ["192.0.2.1", "192.0.2.1"], names)
    assert config.dns
    assert config.bypass == ["192.0.2.1"]
    assert config.search == ["demo.svc.cluster.local"]
    assert config.domains == ["cluster.local", "svc", "demo", "ops", "96.10.in-addr.arpa"]
