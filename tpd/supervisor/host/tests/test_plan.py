"""Golden tables: config in, rules, routes and filter as text out."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from tpd.supervisor.host import plan
from tpd.supervisor.host.types import Granted, Holder, Slot

N = ipaddress.ip_network
SLOT = Slot(2, ipaddress.IPv4Address("198.19.254.9"), ipaddress.IPv4Address("198.19.254.10"))
SLOT6 = replace(SLOT, tun_address6=ipaddress.IPv6Address("fd74:7063:746c::9"))
GRANTED = Granted(
    subnets=(N("10.96.0.0/12"), N("10.244.0.0/16"), N("fd00:10:244::/56")),
    throw=(N("10.96.0.1/32"), N("2001:db8::7/128"), N("192.168.0.53/32")),
)


def routes_text(slot: Slot, granted: Granted) -> str:
    return "\n".join(route.text(slot.table) for route in plan.routes(slot, granted))


def test_rules() -> None:
    assert [rule.text() for rule in plan.rules(SLOT)] == [
        "7004: from all lookup main suppress_prefixlength 0",
        "7005: from all lookup 7002",
    ]
    assert [rule.version for rule in plan.rules(SLOT6)] == [4, 4, 6, 6]


def test_routes_of_both_families_throws_first() -> None:
    assert (
        routes_text(SLOT6, GRANTED)
        == """\
throw 10.96.0.1/32 table 7002
throw 2001:db8::7/128 table 7002
throw 192.168.0.53/32 table 7002
198.19.254.10/32 dev tp2 scope link src 198.19.254.9 table 7002
10.96.0.0/12 dev tp2 scope link src 198.19.254.9 table 7002
10.244.0.0/16 dev tp2 scope link src 198.19.254.9 table 7002
fd00:10:244::/56 dev tp2 scope link src fd74:7063:746c::9 table 7002"""
    )


def test_the_carriers_and_dns_addresses_of_others_go_past_the_device() -> None:
    other = Slot(3, ipaddress.IPv4Address("10.100.254.13"), ipaddress.IPv4Address("10.100.254.14"))
    carriers = (N("10.244.0.9/32"), N("198.19.254.10/32"))  # the second is our own DNS address
    theirs = Holder(other, "b", 1000, Granted(throw=(N("192.168.7.7/32"),), carriers=carriers))
    mine = Holder(SLOT, "a", 1000, Granted(subnets=(N("10.96.0.0/12"),)))
    assert (
        routes_text(SLOT, plan.beside(mine, [theirs]))
        == """\
throw 10.244.0.9/32 table 7002
throw 10.100.254.14/32 table 7002
198.19.254.10/32 dev tp2 scope link src 198.19.254.9 table 7002
10.96.0.0/12 dev tp2 scope link src 198.19.254.9 table 7002"""
    )
    assert plan.beside(mine, []) == mine.granted


def test_no_ipv6_on_a_laptop_without_it() -> None:
    assert (
        routes_text(SLOT, GRANTED)
        == """\
throw 10.96.0.1/32 table 7002
throw 192.168.0.53/32 table 7002
198.19.254.10/32 dev tp2 scope link src 198.19.254.9 table 7002
10.96.0.0/12 dev tp2 scope link src 198.19.254.9 table 7002
10.244.0.0/16 dev tp2 scope link src 198.19.254.9 table 7002"""
    )


def test_only_the_dns_address_before_anything_is_granted() -> None:
    assert routes_text(SLOT, Granted()) == "198.19.254.10/32 dev tp2 scope link src 198.19.254.9 table 7002"


def test_a_throw_for_a_whole_subnet_wins() -> None:
    granted = Granted(subnets=(N("10.1.0.0/16"),), throw=(N("10.1.0.0/16"),))
    assert [route.destination for route in plan.routes(SLOT, granted) if route.device] == ["198.19.254.10/32"]


def test_diff_adds_throws_first_and_removes_them_last() -> None:
    old = plan.routes(SLOT, Granted(subnets=(N("10.1.0.0/16"),), throw=(N("10.1.0.1/32"),)))
    new = plan.routes(SLOT, Granted(subnets=(N("10.2.0.0/16"),), throw=(N("10.2.0.1/32"),)))
    add, remove = plan.diff(old, new)
    assert [route.destination for route in add] == ["10.2.0.1/32", "10.2.0.0/16"]
    assert [route.destination for route in remove] == ["10.1.0.0/16", "10.1.0.1/32"]


def test_the_same_wish_changes_nothing() -> None:
    assert plan.diff(plan.routes(SLOT6, GRANTED), plan.routes(SLOT6, GRANTED)) == ([], [])


def test_filter() -> None:
    granted = replace(GRANTED, throw=(N("10.96.0.1/32"), N("203.0.113.9/32")))
    assert (
        plan.filter_text(SLOT6, granted)
        == """\
add table inet tpd_tp2
delete table inet tpd_tp2
table inet tpd_tp2 {
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname "tp2" ip saddr != { 198.19.254.10/32, 10.96.0.0/12, 10.244.0.0/16 } drop
    iifname "tp2" ip saddr { 10.96.0.1/32 } drop
    iifname "tp2" ip6 saddr != { fd00:10:244::/56 } drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "tp2" drop
  }
}
"""
    )
