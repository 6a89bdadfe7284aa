"""Which names belong to the cluster."""

from __future__ import annotations

import ipaddress

import pytest

from tpd.session.dns.names import Names, Route, host_domains, host_search, names_of, reverse_zones, route
from tpd.tlds import is_taken


def names(
    *,
    connected: str = "demo",
    managed: tuple[str, ...] = ("demo", "shop", "staging", "com"),
    mapped: tuple[str, ...] = (),
    search: tuple[str, ...] = ("corp.example",),
) -> Names:
    return names_of(
        connected=connected,
        managed=managed,
        mapped=mapped,
        cluster_domain="cluster.local.",
        subnets=("10.96.0.0/16", "10.244.0.0/24", "fd00:10:96::/112"),
        host_search=search,
        taken=is_taken,
    )


def way(name: str, of: Names) -> Route:
    return route(tuple(label for label in name.rstrip(".").lower().split(".") if label), of)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("echo", Route.CLUSTER_THEN_UPSTREAM),
        ("_http._tcp.echo", Route.CLUSTER_THEN_UPSTREAM),
        ("echo.demo", Route.CLUSTER),
        ("ECHO.Demo.", Route.CLUSTER),
        ("pod-0.headless.staging", Route.CLUSTER),
        ("echo.demo.svc", Route.CLUSTER),
        ("echo.demo.svc.cluster.local", Route.CLUSTER),
        ("pod-0.headless.demo.svc.cluster.local", Route.CLUSTER),
        ("_http._tcp.echo.demo.svc.cluster.local", Route.CLUSTER),
        ("www.example.com.demo.svc.cluster.local", Route.NOBODY),
        ("www.example.com", Route.UPSTREAM),
        ("github.com", Route.UPSTREAM),
        ("my.shop", Route.UPSTREAM),
        ("example.org.", Route.UPSTREAM),
        ("", Route.UPSTREAM),
        ("wpad", Route.UPSTREAM),
        ("wpad.demo", Route.UPSTREAM),
        ("foo.localhost", Route.UPSTREAM),
        ("b._dns-sd._udp.corp.example", Route.UPSTREAM),
        ("1.0.96.10.in-addr.arpa", Route.CLUSTER),
        ("7.0.244.10.in-addr.arpa", Route.CLUSTER),
        ("7.1.244.10.in-addr.arpa", Route.UPSTREAM),
        ("96.10.in-addr.arpa", Route.UPSTREAM),
        ("x.0.96.10.in-addr.arpa", Route.UPSTREAM),
        ("a." + "0." * 19 + "6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa", Route.CLUSTER),
    ],
)
def test_route(name: str, expected: Route) -> None:
    assert way(name, names()) is expected


def test_a_namespace_that_is_a_public_domain_captures_nothing_unless_it_is_ours() -> None:
    assert way("github.com", names(mapped=("com",))) is Route.CLUSTER_THEN_UPSTREAM
    assert way("api.github.com", names(mapped=("com",))) is Route.UPSTREAM
    assert way("my.shop", names(connected="shop")) is Route.CLUSTER_THEN_UPSTREAM
    assert way("cart.my.shop", names(connected="shop")) is Route.UPSTREAM
    assert "com" not in host_domains(names())


def test_a_namespace_like_the_laptops_search_domain_captures_nothing() -> None:
    assert way("printer.staging", names(search=("berlin.staging",))) is Route.UPSTREAM
    assert way("printer.staging", names(search=("staging",), connected="staging")) is Route.CLUSTER_THEN_UPSTREAM


def test_mapped_namespaces_are_the_only_ones() -> None:
    chosen = names(mapped=("elsewhere",))
    assert way("echo.elsewhere", chosen) is Route.CLUSTER
    assert way("echo.demo", chosen) is Route.CLUSTER, "the connected namespace always belongs to them"
    assert way("echo.staging", chosen) is Route.UPSTREAM


def test_what_the_host_is_told() -> None:
    assert host_search(names()) == ["demo.svc.cluster.local"]
    assert host_domains(names()) == [
        "cluster.local",
        "svc",
        "demo",
        "staging",
        "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
        "0.244.10.in-addr.arpa",
        "96.10.in-addr.arpa",
    ]


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.96.0.0/16", ["96.10.in-addr.arpa"]),
        ("10.96.0.0/12", [f"{n}.10.in-addr.arpa" for n in range(96, 112)]),
        ("10.0.0.0/9", ["10.in-addr.arpa"]),
        ("10.1.2.0/30", [f"{n}.2.1.10.in-addr.arpa" for n in range(4)]),
        ("10.1.2.3/32", ["3.2.1.10.in-addr.arpa"]),
    ],
)
def test_reverse_zones(network: str, zones: list[str]) -> None:
    assert reverse_zones(ipaddress.ip_network(network)) == zones
