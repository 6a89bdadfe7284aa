"""The choice of slot and addresses."""

from __future__ import annotations

import ipaddress

import pytest

from tpd.supervisor.host.addresses import SLOTS, choose_slot
from tpd.supervisor.host.types import HostError, Network, Slot


def choose(used: range = range(0), networks: tuple[str, ...] = (), ipv6: bool = False, **more: set[object]) -> Slot:
    parsed: list[Network] = [ipaddress.ip_network(text) for text in networks]
    tables = {int(str(table)) for table in more.get("tables", set())}
    devices = {str(device) for device in more.get("devices", set())}
    return choose_slot(used=used, tables=tables, devices=devices, networks=parsed, ipv6=ipv6)


def test_the_first_slot() -> None:
    slot = choose(ipv6=True)
    assert (slot.device, slot.table, slot.priority) == ("tp0", 7000, 7000)
    assert (str(slot.tun_address), str(slot.dns_address)) == ("198.19.254.1", "198.19.254.2")
    assert str(slot.tun_address6) == "fd74:7063:746c::1"


def test_slots_share_nothing() -> None:
    slots = [choose(range(count), ipv6=True) for count in range(SLOTS)]
    addresses = [address for slot in slots for address in (slot.tun_address, slot.dns_address, slot.tun_address6)]
    assert len(set(addresses)) == 3 * SLOTS
    assert len({slot.table for slot in slots}) == SLOTS
    assert len({number for slot in slots for number in (slot.priority, slot.priority + 1)}) == 2 * SLOTS


def test_tables_and_devices_of_others_are_left_alone() -> None:
    assert choose(tables={7000}).index == 1
    assert choose(devices={"tp0", "tp1"}).index == 2


def test_a_range_that_the_laptop_uses_is_passed_over() -> None:
    assert str(choose(networks=("198.18.0.0/15",)).tun_address) == "100.127.254.1"
    assert str(choose(networks=("198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8")).tun_address) == "172.30.254.1"


def test_no_slot_and_no_range_are_sentences() -> None:
    with pytest.raises(HostError, match="in use"):
        choose(range(SLOTS))
    with pytest.raises(HostError, match="overlap"):
        choose(networks=("198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
