"""Which networks the cluster's services and pods have: what a laptop routes into its tunnel."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WIDEST = {4: 16, 6: 64}
"""Prefix lengths above which covered pods are not merged further: a guess must not swallow the laptop's own nets."""


def networks(texts: Iterable[object]) -> list[Network]:
    """Parse; what is no network is left out."""
    result: list[Network] = []
    for text in texts:
        try:
            result.append(ipaddress.ip_network(str(text), strict=False))
        except ValueError:
            continue
    return result


def service_networks(service_cidrs: Iterable[Mapping[str, Any]], own_service: Address | None) -> list[Network]:
    """From ServiceCIDR objects (networking.k8s.io/v1); else around our own Service's address."""
    found = networks(cidr for item in service_cidrs for cidr in (item.get("spec") or {}).get("cidrs") or ())
    if not found and own_service is not None:
        found = [_around(own_service, _WIDEST[own_service.version])]
    return collapse(found)


def pod_networks(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> list[Network]:
    """The nodes' podCIDRs when every pod lies in them; else networks that cover the pods there are.

    Pods on their node's own network (hostNetwork) do not count.
    """
    of_nodes = networks(cidr for node in nodes for cidr in _or_list((node.get("spec") or {}).get("podCIDRs"), node))
    addresses = set(_pod_addresses(pods))
    if of_nodes and all(any(address in network for network in of_nodes) for address in addresses):
        return collapse(of_nodes)
    return cover(addresses)


def cover(addresses: Iterable[Address]) -> list[Network]:
    """Networks around these addresses: a /24 (IPv6: /120) each, merged, neighbours within a /16 (/64) as one."""
    groups: dict[Network, list[Network]] = {}
    for address in addresses:
        small = _around(address, 24 if address.version == 4 else 120)
        groups.setdefault(_around(address, _WIDEST[address.version]), []).append(small)
    result: list[Network] = []
    for members in groups.values():
        common = members[0]
        while not all(_inside(member, common) for member in members):
            common = common.supernet()
        result.append(common)
    return collapse(result)


def collapse(found: Sequence[Network]) -> list[Network]:
    """Sorted, without those inside others."""
    v4 = ipaddress.collapse_addresses(network for network in found if isinstance(network, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(network for network in found if isinstance(network, ipaddress.IPv6Network))
    return [*v4, *v6]


def _pod_addresses(pods: Iterable[Mapping[str, Any]]) -> Iterable[Address]:
    for pod in pods:
        status = pod.get("status") or {}
        if (pod.get("spec") or {}).get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        for entry in status.get("podIPs") or ():
            try:
                yield ipaddress.ip_address(str(entry.get("ip")))
            except ValueError:
                continue


def _or_list(cidrs: Sequence[str] | None, node: Mapping[str, Any]) -> Sequence[str]:
    single = (node.get("spec") or {}).get("podCIDR")
    return cidrs or ([single] if single else [])


def _around(address: Address, length: int) -> Network:
    return ipaddress.ip_network(f"{address}/{length}", strict=False)


def _inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)
