"""Pure. Which DNS names belong to the cluster, and what the host is told about them."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Route(enum.Enum):
    """Who answers a question."""

    CLUSTER = "cluster"
    CLUSTER_THEN_UPSTREAM = "cluster, and the laptop's resolver for what the cluster does not know"
    UPSTREAM = "the laptop's resolver"
    NOBODY = "a name that cannot exist"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one connection. All lower case, without trailing dots."""

    connected: str
    """The connected namespace: single labels are names of its services."""
    domain: tuple[str, ...]
    """Labels of the cluster domain, e.g. ("cluster", "local")."""
    namespaces: frozenset[str]
    """Served as `….NAMESPACE`."""
    shared: frozenset[str]
    """Namespaces whose name also means something outside: only `NAME.NAMESPACE`, and what the cluster does not know
    goes on to the laptop's resolver."""
    networks: tuple[Network, ...]
    """Subnets of the cluster, for reverse names."""


def names_of(
    *,
    connected: str,
    managed: Iterable[str],
    mapped: Sequence[str],
    cluster_domain: str,
    subnets: Iterable[str],
    host_search: Iterable[str],
    taken: Callable[[str], bool],
) -> Names:
    """Apply the rules about namespaces that are also public top-level domains or in the laptop's search list.

    managed: what the manager announces; mapped: what the user named (then only those, and the connected one);
    taken: whether a label means something outside the cluster.
    """
    outside = {domain.rstrip(".").lower().rpartition(".")[2] for domain in host_search}
    chosen = {name.lower() for name in (mapped or managed)} | {connected}
    wanted = {name.lower() for name in mapped} | {connected}
    risky = {name for name in chosen if taken(name) or name in outside}
    return Names(
        connected=connected,
        domain=tuple(cluster_domain.rstrip(".").lower().split(".")),
        namespaces=frozenset(chosen - risky),
        shared=frozenset(risky & wanted),
        networks=tuple(ipaddress.ip_network(subnet) for subnet in subnets),
    )


_NEVER_FROM_CLUSTER = frozenset(("wpad", "localhost", "isatap"))
"""Names that programs ask for by themselves and then trust; a service of that name must not catch them."""


def route(labels: Sequence[str], names: Names) -> Route:
    """Who answers a question about the name `labels` (lower case, without the root)."""
    if not labels or labels[0] in _NEVER_FROM_CLUSTER or labels[-1] == "localhost":
        return Route.UPSTREAM
    if labels[-1] == "arpa":
        address = reverse_address(labels)
        inside = address is not None and any(address in network for network in names.networks)
        return Route.CLUSTER if inside else Route.UPSTREAM
    if tuple(labels[-len(names.domain) :]) == names.domain:
        return _in_cluster_domain(labels[: -len(names.domain)])
    bare = _without_service(labels)
    if len(bare) == 1:
        return Route.CLUSTER_THEN_UPSTREAM
    last = bare[-1]
    if last == "svc" or last in names.namespaces:
        return Route.CLUSTER
    if last in names.shared and len(bare) == 2:
        return Route.CLUSTER_THEN_UPSTREAM
    return Route.UPSTREAM


def _in_cluster_domain(labels: Sequence[str]) -> Route:
    """`HOST.SERVICE.NAMESPACE.svc` is the longest there is; a resolver that puts a search domain behind
    `www.example.com` gets its answer here, so that the cluster does not learn of it."""
    if labels and labels[-1] == "svc" and len(_without_service(labels)) > 4:
        return Route.NOBODY
    return Route.CLUSTER


def _without_service(labels: Sequence[str]) -> Sequence[str]:
    """Without the `_service._protocol` in front (RFC 2782)."""
    if len(labels) > 2 and labels[0].startswith("_") and labels[1].startswith("_"):
        return labels[2:]
    return labels


def reverse_address(labels: Sequence[str]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a whole reverse name stands for (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    try:
        if len(labels) == 6 and labels[-2] == "in-addr":
            return ipaddress.IPv4Address(".".join(reversed(labels[:4])))
        if len(labels) == 34 and labels[-2] == "ip6":
            return ipaddress.IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        pass
    return None


def host_domains(names: Names) -> list[str]:
    """DNS suffixes that the host shall ask us about."""
    reverse = sorted({zone for network in names.networks for zone in reverse_zones(network)})
    return [".".join(names.domain), "svc", *sorted(names.namespaces), *sorted(names.shared), *reverse]


def host_search(names: Names) -> list[str]:
    """Search list in front of the laptop's own: makes single labels of the connected namespace whole names."""
    return [".".join((names.connected, "svc", *names.domain))]


def reverse_zones(network: Network) -> list[str]:
    """The zones of the reverse tree that lie in `network`, at most 16 (RFC 1035 section 3.5)."""
    step = 8 if network.version == 4 else 4
    length = -(-network.prefixlen // step) * step
    if length == 0 or 2 ** (length - network.prefixlen) > 16:
        length = max(step, network.prefixlen // step * step)
    subnets: list[Network] = [network]
    if length > network.prefixlen:
        subnets = list(network.subnets(new_prefix=length))
    zones = []
    for subnet in subnets:
        digits = subnet.network_address.reverse_pointer.split(".")
        zones.append(".".join(digits[-(length // step + 2) :]))
    return zones
