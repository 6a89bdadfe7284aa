"""Pure. What the host is asked for: routes, addresses that must never be routed into the device, names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from tpd.session.dns.names import Names, host_domains, host_search
from tunnel.proto import daemon_pb2, manager_pb2


def subnets_of(cluster: manager_pb2.Cluster) -> list[str]:
    """The cluster's subnets without those inside others, in order."""
    networks4, networks6 = [], []
    for text in (*cluster.service_subnets, *cluster.pod_subnets):
        network = ipaddress.ip_network(text, strict=False)
        if isinstance(network, ipaddress.IPv4Network):
            networks4.append(network)
        else:
            networks6.append(network)
    return [
        *(str(network) for network in ipaddress.collapse_addresses(networks4)),
        *(str(network) for network in ipaddress.collapse_addresses(networks6)),
    ]


def host_config(subnets: Sequence[str], bypass: Iterable[str], names: Names) -> daemon_pb2.HostConfig:
    """The whole desired state."""
    return daemon_pb2.HostConfig(
        subnets=subnets,
        bypass=sorted(set(bypass)),
        search=host_search(names),
        domains=host_domains(names),
        dns=True,
    )
