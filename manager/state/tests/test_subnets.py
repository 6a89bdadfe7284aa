import ipaddress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manager.state import subnets


def _pod(*addresses: str, **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]}}


def _texts(networks: list[subnets.Network]) -> list[str]:
    return [str(network) for network in networks]


NODE = {"spec": {"podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]}}


def test_services_lie_in_the_service_cidrs() -> None:
    cidrs = [{"spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}}, {"spec": {"cidrs": ["10.97.0.0/16"]}}]
    assert _texts(subnets.service_networks(cidrs, None)) == ["10.96.0.0/15", "fd00::/112"]


def test_without_them_around_our_own_service() -> None:
    assert _texts(subnets.service_networks([], ipaddress.ip_address("10.43.7.8"))) == ["10.43.0.0/16"]
    assert subnets.service_networks([], None) == []


def test_pods_lie_in_the_nodes_networks() -> None:
    pods = [_pod("10.244.0.7", "fd00:10:244::7"), _pod("192.168.1.1", hostNetwork=True)]
    assert _texts(subnets.pod_networks([NODE], pods)) == ["10.244.0.0/24", "fd00:10:244::/64"]


def test_a_pod_outside_makes_the_nodes_networks_worthless() -> None:
    pods = [_pod("172.16.3.4"), _pod("172.16.9.4")]
    found = subnets.pod_networks([NODE], pods)
    assert _texts(found) == ["172.16.0.0/20"]


def test_finished_pods_and_nonsense_do_not_count() -> None:
    done = {"status": {"phase": "Succeeded", "podIPs": [{"ip": "172.16.3.4"}]}}
    assert subnets.pod_networks([], [done, _pod("nonsense"), {}]) == []


@given(st.lists(st.ip_addresses(v=4) | st.ip_addresses(v=6), max_size=30))
def test_what_covers_covers_all_and_stays_small(addresses: list[subnets.Address]) -> None:
    found = subnets.cover(addresses)
    for address in addresses:
        assert any(address in network for network in found)
    assert all(network.prefixlen >= (16 if network.version == 4 else 64) or len(addresses) > 1 for network in found)
