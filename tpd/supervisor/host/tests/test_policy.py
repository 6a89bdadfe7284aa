"""What a worker may have."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpd.supervisor.host import policy
from tpd.supervisor.host.policy import Policy, PolicyError, decide, parse_policy, reverse_zone
from tpd.supervisor.host.types import Connected, Facts, Granted, Holder, Slot, Upstreams, Wish

N = ipaddress.ip_network
A = ipaddress.ip_address

FACTS = Facts(
    connected=(Connected(N("192.168.77.0/24"), "eth0"), Connected(N("10.1.2.0/24"), "wlan0")),
    gateways=(A("192.168.77.1"),),
    routed=(N("192.168.77.0/24"), N("10.1.2.0/24"), N("172.20.0.0/16")),
)
UPSTREAMS = Upstreams((A("10.200.0.53"), A("127.0.0.1")), ("corp.example",))


def holder(index: int, granted: Granted, *, uid: int = 1000, owner: str = "first") -> Holder:
    first = ipaddress.IPv4Address("198.19.254.1") + 4 * index
    return Holder(Slot(index, first, first + 1), owner, uid, granted)


def ask(wish: Wish, *others: Holder, rules: Policy | None = None, before: Granted | None = None) -> Granted:
    """What connection 9 of user 1000 gets."""
    return decide(
        wish,
        me=holder(9, before or Granted(), owner="me"),
        facts=FACTS,
        upstreams=UPSTREAMS,
        policy=rules or Policy(),
        others=others,
    )


@pytest.mark.parametrize(
    ("subnet", "why"),
    [
        ("0.0.0.0/0", "0.0.0.0/0 is the default route"),
        ("::/0", "::/0 is the default route"),
        ("127.0.0.0/8", "127.0.0.0/8 is loopback"),
        ("127.1.0.0/16", "127.1.0.0/16 is loopback"),
        ("::1/128", "::1/128 is loopback"),
        ("169.254.169.254/32", "169.254.169.254/32 is link-local"),
        ("fe80::/64", "fe80::/64 is link-local"),
        ("224.0.0.0/4", "224.0.0.0/4 is multicast or reserved"),
        ("255.255.255.255", "255.255.255.255/32 is multicast or reserved"),
        ("ff02::/16", "ff02::/16 is multicast"),
        ("::ffff:10.0.0.0/104", "::ffff:a00:0/104 is IPv4 in disguise"),
        ("0.0.0.0/1", "0.0.0.0/1 contains 0.0.0.0/8 (not a destination)"),
        ("128.0.0.0/1", "128.0.0.0/1 contains 169.254.0.0/16 (link-local)"),
        ("192.168.77.0/24", "192.168.77.0/24 is inside the laptop's own network 192.168.77.0/24 (eth0)"),
        ("192.168.77.128/25", "192.168.77.128/25 is inside the laptop's own network 192.168.77.0/24 (eth0)"),
        ("172.20.3.0/24", "172.20.3.0/24 is already routed elsewhere by the laptop (route 172.20.0.0/16)"),
        ("8.8.8.0/24", "8.8.8.0/24 is not a private range"),
        ("8.0.0.0/6", "8.0.0.0/6 is not a private range"),
        ("2001:db8::/32", "2001:db8::/32 is not a private range"),
        ("10.0.0.1/8", "'10.0.0.1/8' is not a subnet"),
        ("nonsense", "'nonsense' is not a subnet"),
    ],
)
def test_forbidden_subnets_are_refused_by_name_and_the_rest_is_granted(subnet: str, why: str) -> None:
    granted = ask(Wish(subnets=(subnet, "10.96.0.0/12")))
    assert granted.subnets == (N("10.96.0.0/12"),)
    assert len(granted.refused) == 1
    assert granted.refused[0].startswith(why)


def test_a_wider_subnet_is_granted_without_what_is_the_laptops_own() -> None:
    granted = ask(Wish(subnets=("10.0.0.0/8", "192.168.0.0/16")))
    assert granted.subnets == (N("10.0.0.0/8"), N("192.168.0.0/16"))
    assert {N("192.168.77.0/24"), N("10.1.2.0/24"), N("192.168.77.1/32"), N("10.200.0.53/32")} <= set(granted.throw)
    assert granted.refused == (
        "192.168.77.0/24 is the laptop's own network (eth0)",
        "10.1.2.0/24 is the laptop's own network (wlan0)",
        "10.200.0.53 is the laptop's own resolver",
    )


def test_a_more_specific_route_of_the_laptop_is_named() -> None:
    granted = ask(Wish(subnets=("172.16.0.0/12",)))
    assert granted.subnets == (N("172.16.0.0/12"),)
    assert granted.refused == ("172.20.0.0/16 is already routed elsewhere by the laptop",)


def test_the_reverse_names_of_a_refused_subnet_need_no_reason_of_their_own() -> None:
    granted = ask(Wish(subnets=("172.20.3.0/24",), domains=("3.20.172.in-addr.arpa", "4.20.172.in-addr.arpa")))
    assert granted.domains == ()
    assert [text[:35] for text in granted.refused] == [
        "172.20.3.0/24 is already routed els",
        "the reverse names of 172.20.4.0/24,",
    ]


def test_carriers_and_resolvers_are_always_thrown_but_never_loopback() -> None:
    granted = ask(Wish(subnets=("10.96.0.0/12",), bypass=("203.0.113.5", "10.96.0.1", "127.0.0.1", "fd00::5", "x")))
    assert granted.throw == (N("203.0.113.5/32"), N("10.96.0.1/32"), N("fd00::5/128"), N("10.200.0.53/32"))
    assert granted.refused == ("'x' is not an address",)


def test_what_another_connection_has_is_refused_by_name() -> None:
    other = Granted(subnets=(N("10.32.0.0/16"),), carriers=(N("10.96.7.7/32"),))
    granted = ask(Wish(subnets=("10.96.0.0/12", "10.32.5.0/24")), holder(0, other))
    assert granted.subnets == (N("10.96.0.0/12"),)
    assert granted.refused == (
        "10.32.5.0/24 is already routed to the connection first",
        "10.96.7.7/32 is how the connection first reaches its cluster",
    )


def test_two_connections_of_one_name_are_two() -> None:
    first = holder(0, Granted(subnets=(N("10.32.0.0/16"),), domains=("svc", "one.local"), dns=True), owner="twin")
    second = holder(1, Granted(subnets=(N("10.48.0.0/16"),), domains=("demo",), dns=True), owner="twin")
    wish = Wish(subnets=("10.32.0.0/16", "10.48.0.0/16"), domains=("svc", "one.local", "demo"), dns=True)
    granted = ask(wish, first, second)
    assert (granted.subnets, granted.domains) == ((), ())
    assert len(granted.refused) == 5


@pytest.mark.parametrize(
    ("address", "uid", "why"),
    [
        ("10.32.0.10", 1001, "10.32.0.10 is already routed to the connection first"),
        ("10.32.0.10", 1000, ""),  # one's own two clusters: the carrier of one lies in the other's subnet
        ("10.32.0.1", 1001, ""),  # the other's carrier as well: it goes past its device already
        ("192.168.77.9", 1001, ""),
        ("198.19.254.2", 1001, "198.19.254.2 is an address of tp0"),
        ("198.19.254.2", 1000, "198.19.254.2 is an address of tp0"),
        ("198.19.254.1", 1000, "198.19.254.1 is an address of tp0"),
        ("198.19.254.38", 1000, "198.19.254.38 is an address of tp9"),
    ],
)
def test_no_carrier_among_what_another_user_has(address: str, uid: int, why: str) -> None:
    theirs = Granted(
        subnets=(N("10.32.0.0/16"), N("192.168.0.0/16")),
        throw=(N("10.32.0.1/32"), N("192.168.77.0/24")),
        carriers=(N("10.32.0.1/32"),),
    )
    granted = ask(Wish(bypass=(address, "203.0.113.7")), holder(0, theirs, uid=uid))
    assert (N(address) in granted.carriers) is not bool(why)
    assert N("203.0.113.7") in granted.throw
    assert "".join(granted.refused).startswith(why)
    assert bool(granted.refused) is bool(why)


def test_a_carrier_that_was_there_before_anothers_subnet_stays() -> None:
    theirs = holder(0, Granted(subnets=(N("10.32.0.0/16"),)), uid=1001)
    before = Granted(carriers=(N("10.32.0.10/32"),))
    assert ask(Wish(bypass=("10.32.0.10",)), theirs, before=before).carriers == before.carriers


def test_link_local_and_loopback_need_no_way_past_a_device() -> None:
    upstreams = Upstreams((A("fe80::1%wlan0"), A("127.0.0.53"), A("fd00::53%eth0")))
    wish = Wish(subnets=("10.96.0.0/12",), bypass=("fe80::2%eth0", "fe80::2", "169.254.1.1", "::1"))
    granted = decide(wish, me=holder(9, Granted()), facts=FACTS, upstreams=upstreams, policy=Policy(), others=())
    assert granted.throw == (N("fd00::53/128"),)
    assert granted.refused == ()


def test_the_policy_file_opens_non_private_ranges() -> None:
    rules = parse_policy({"allowSubnets": ["203.0.113.0/24"]})
    assert ask(Wish(subnets=("203.0.113.128/25",)), rules=rules).subnets == (N("203.0.113.128/25"),)
    assert ask(Wish(subnets=("203.0.112.0/23",)), rules=rules).subnets == ()


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        {"allowSubnets": "10.0.0.0/8"},
        {"allowSubnets": ["10.0.0.1/8"]},
        {"allow": []},
        {"allowDomains": ["com"]},
    ],
)
def test_a_policy_file_that_is_not_understood_is_an_error(value: object) -> None:
    with pytest.raises(PolicyError):
        parse_policy(value)


def test_an_empty_policy_file_is_the_default() -> None:
    assert parse_policy(None) == Policy()


@pytest.mark.parametrize(
    ("domain", "granted"),
    [
        ("svc", True),
        ("cluster.local", True),
        ("k8s.internal", True),
        ("demo", True),
        ("Demo.", True),
        ("k8s.example.com", False),
        ("com", False),
        ("dev", False),
        ("example", False),  # the laptop's own search domain lies below
        ("corp.example", False),
        ("vault.corp.example", False),
        ("localhost", False),
        ("arpa", False),
        ("in-addr.arpa", False),
        ("a..b", False),
        ("a b", False),
        ("", False),
        ("x" * 64, False),
    ],
)
def test_domains(domain: str, granted: bool) -> None:
    result = ask(Wish(domains=(domain,), dns=True))
    assert bool(result.domains) is granted
    assert bool(result.refused) is not granted


def test_a_namespace_like_a_public_domain_is_served_when_the_user_named_it() -> None:
    assert ask(Wish(domains=("com", "dev"), named=frozenset({"dev"}))).domains == ("dev",)


def test_what_a_worker_calls_the_connected_namespace_is_not_named_by_the_user() -> None:
    granted = ask(Wish(domains=("cluster.local", "com"), search=("com.svc.cluster.local",)))
    assert granted.domains == ("cluster.local",)
    assert granted.search == ("com.svc.cluster.local",)
    assert "name it with -n" in granted.refused[0]


def test_the_policy_file_opens_public_cluster_domains() -> None:
    rules = parse_policy({"allowDomains": ["K8s.Example.com"]})
    assert ask(Wish(domains=("k8s.example.com",)), rules=rules).domains == ("k8s.example.com",)


def test_the_policy_file_opens_a_cluster_domain_inside_the_laptops_own() -> None:
    rules = parse_policy({"allowDomains": ["k8s.corp.example"]})
    wished = Wish(domains=("k8s.corp.example", "mail.corp.example"))
    assert ask(wished, rules=rules).domains == ("k8s.corp.example",)


def test_search_only_below_a_granted_cluster_domain() -> None:
    wish = Wish(
        domains=("svc", "cluster.local"),
        search=("demo.svc.cluster.local", "svc.cluster.local", "cluster.local", "evil.com", "a.b.svc.cluster.local"),
    )
    granted = ask(wish)
    assert granted.search == ("demo.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert len(granted.refused) == 2
    assert ask(replace(wish, domains=("svc",))).search == ()


def test_a_domain_belongs_to_one_connection() -> None:
    other = holder(0, Granted(domains=("svc", "cluster.local", "demo"), dns=True))
    granted = ask(Wish(domains=("svc", "other.local")), other)
    assert granted.domains == ("other.local",)
    assert granted.refused == ("the domain svc already belongs to the connection first",)


@pytest.mark.parametrize(
    "domain", ["demo.svc.cluster.local", "svc.cluster.local", "a.svc", "api.demo", "one.k8s.internal", "k8s.internal"]
)
def test_nobody_takes_names_out_of_anothers_domain(domain: str) -> None:
    other = holder(0, Granted(domains=("svc", "cluster.local", "demo", "a.one.k8s.internal"), dns=True))
    granted = ask(Wish(domains=(domain,), dns=True), other)
    assert granted.domains == ()
    assert granted.refused == (f"the domain {domain} already belongs to the connection first",)


def test_a_namespace_may_be_the_end_of_anothers_cluster_domain() -> None:
    other = holder(0, Granted(domains=("k8s.demo",), dns=True))
    assert ask(Wish(domains=("demo",), dns=True), other).domains == ("demo",)


def test_one_cluster_domain() -> None:
    wish = Wish(
        subnets=("10.96.0.0/16",),
        domains=("cluster.local", "svc.cluster.local", "vault.corp", "nas.lan", "demo", "96.10.in-addr.arpa"),
        search=("demo.svc.cluster.local", "vault.corp"),
    )
    granted = ask(wish)
    assert granted.domains == ("cluster.local", "svc.cluster.local", "demo", "96.10.in-addr.arpa")
    assert granted.search == ("demo.svc.cluster.local",)
    assert granted.refused == (
        "the domain vault.corp is a second one beside the cluster domain cluster.local",
        "the domain nas.lan is a second one beside the cluster domain cluster.local",
        "the search domain 'vault.corp' is not below a granted cluster domain",
    )


def test_wishes_are_bounded() -> None:
    granted = ask(
        Wish(
            subnets=tuple(f"10.{i >> 8}.{i & 255}.0/24" for i in range(policy.MAX_SUBNETS + 5)),
            bypass=("203.0.113.1",) * (policy.MAX_BYPASS + 1),
            domains=tuple(f"ns-{i}" for i in range(policy.MAX_DOMAINS + 2)),
        )
    )
    assert len(granted.domains) == policy.MAX_DOMAINS
    assert sum("beyond the first" in text for text in granted.refused) == 3


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_whatever_is_granted_is_private_and_never_the_laptops_own(number: int, length: int) -> None:
    subnet = ipaddress.IPv4Network((number, length), strict=False)
    granted = ask(Wish(subnets=(str(subnet),)))
    for network in granted.subnets:
        assert network.is_private or network.subnet_of(N("100.64.0.0/10"))  # type: ignore[arg-type]  # IPv4 both
        assert not network.is_loopback
        assert not network.is_multicast
        for own in FACTS.connected:
            if network.overlaps(own.network):
                assert own.network in granted.throw


@given(st.text(max_size=40))
def test_no_text_breaks_the_decision(text: str) -> None:
    granted = ask(Wish(subnets=(text,), bypass=(text,), search=(text,), domains=(text,), dns=True))
    assert all(isinstance(line, str) for line in granted.refused)


def test_reverse_names_only_of_granted_subnets() -> None:
    assert reverse_zone("96.10.in-addr.arpa") == ipaddress.ip_network("10.96.0.0/16")
    assert reverse_zone("4.3.2.1.in-addr.arpa") == ipaddress.ip_network("1.2.3.4/32")
    assert reverse_zone("0.1.d.f.ip6.arpa") == ipaddress.ip_network("fd10::/16")
    for name in ("in-addr.arpa", "arpa", "x.10.in-addr.arpa", "300.in-addr.arpa", "10.ip6.arpa", "cluster.local"):
        assert reverse_zone(name) is None, name
    granted = ask(
        Wish(subnets=("10.96.0.0/16",), domains=("96.10.in-addr.arpa", "10.in-addr.arpa", "8.8.in-addr.arpa"))
    )
    assert granted.domains == ("96.10.in-addr.arpa",)
    assert len(granted.refused) == 2
