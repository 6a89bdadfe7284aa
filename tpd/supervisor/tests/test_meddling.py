"""The real host while others change it under our hands: what is put back, followed, kept and tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tpd.supervisor.tests.laptop import RESOLV_CONF, Laptop, laptop
from tpd.supervisor.tests.test_laptop import HOST, same, until
from tunnel.proto import daemon_pb2 as pb

pytestmark = pytest.mark.root


@pytest.fixture
def place() -> Iterator[Laptop]:
    with laptop() as made:
        yield made


def resolv_conf(place: Laptop) -> str:
    return place.run("cat", "/etc/resolv.conf")


def wish(place: Laptop, host: object) -> None:
    place.ask(pb.Request(replace=pb.Replace(workload="wish", container=json.dumps(host))))


def test_what_others_remove_of_ours_is_put_back(place: Laptop) -> None:
    before = place.state_text()
    place.start_daemon()
    place.connect(json.dumps(HOST))
    connected = place.state_text()
    place.run("ip", "rule", "del", "priority", "7001")
    place.run("ip", "-6", "rule", "del", "priority", "7000")
    place.run("ip", "route", "flush", "table", "7000")
    place.run("nft", "flush", "ruleset")
    until(lambda: place.state_text() == connected)
    assert "put back what somebody had removed" in place.log.read_text()
    place.ask(pb.Request(quit=pb.Quit(stop_daemon=True)))
    place.daemons[0].wait(10)
    same(before, place.state_text())


def test_an_edit_in_place_costs_no_resolver(place: Laptop) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))
    place.resolv_conf.write_text(resolv_conf(place).replace("ndots:1", "ndots:3"))
    until(lambda: place.log.read_text().count("refused: 0.0.0.0/0") == 2)  # it was applied anew
    assert 'addresses: "192.168.77.53"' in place.whoami()["upstreams"]
    assert "198.19.254.2" in resolv_conf(place)
    place.ask(pb.Request(quit=pb.Quit()))
    assert sorted(resolv_conf(place).splitlines()) == sorted(RESOLV_CONF.replace("ndots:1", "ndots:3").splitlines())


def test_a_link_is_followed_while_it_is_replaced() -> None:
    with laptop(bind=False) as place:
        place.run("mv", "/etc/resolv.conf", "/etc/behind")
        place.run("ln", "-s", "behind", "/etc/resolv.conf")
        place.start_daemon()
        place.connect(json.dumps(HOST))
        assert "198.19.254.2" in resolv_conf(place)
        place.run("sh", "-c", "echo 'nameserver 192.168.77.54' > /etc/behind")
        until(lambda: "192.168.77.54" in place.whoami()["upstreams"])
        assert "198.19.254.2" in resolv_conf(place)
        place.ask(pb.Request(quit=pb.Quit()))
        assert place.run("readlink", "/etc/resolv.conf") == "behind\n"
        assert resolv_conf(place) == "nameserver 192.168.77.54\n"


def test_a_resolver_of_the_local_link_needs_no_route(place: Laptop) -> None:
    place.resolv_conf.write_text("nameserver fe80::1%eth0\nnameserver 192.168.77.53\n")
    place.start_daemon()
    event = place.connect(json.dumps(HOST))
    assert event.error.text == ""
    assert 'addresses: "fe80::1%eth0"' in place.whoami()["start"]
    assert "fe80::1" not in place.run("ip", "-6", "route", "show", "table", "7000")


def test_what_cannot_be_undone_is_said_and_tried_again(place: Laptop) -> None:
    before = place.state_text()
    place.start_daemon()
    place.connect(json.dumps(HOST))
    place.run("mount", "-o", "remount,bind,ro", "/etc/resolv.conf")
    said = place.ask(pb.Request(quit=pb.Quit()))[1].error.text
    assert "could be undone" in said
    assert "/etc/resolv.conf" in said
    assert list(place.state.glob("journal/*.jsonl"))
    second = json.dumps({"subnets": ["10.96.0.0/12"]})
    assert place.connect(second).connect.device == "tp1"  # the journal of tp0 is needed
    place.run("mount", "-o", "remount,bind,rw", "/etc/resolv.conf")
    until(lambda: resolv_conf(place) == RESOLV_CONF)
    place.ask(pb.Request(quit=pb.Quit(stop_daemon=True)))
    place.daemons[0].wait(10)
    assert not list(place.state.glob("journal/*"))
    same(before, place.state_text())


def test_what_a_dead_tpd_left_is_tried_again(place: Laptop) -> None:
    daemon = place.start_daemon()
    place.connect(json.dumps(HOST))
    daemon.kill()
    daemon.wait(5)
    place.run("mount", "-o", "remount,bind,ro", "/etc/resolv.conf")
    place.start_daemon()
    assert "198.19.254.2" in resolv_conf(place)
    place.run("mount", "-o", "remount,bind,rw", "/etc/resolv.conf")
    until(lambda: resolv_conf(place) == RESOLV_CONF)
    until(lambda: not list(place.state.glob("journal/*")))


def test_a_wish_that_could_not_be_applied_is_applied_later(place: Laptop) -> None:
    place.start_daemon()
    place.connect(json.dumps(HOST))
    policy = place.folder / "policy.yaml"
    policy.write_text("allowSubnets: [203.0.113.0/24]\n")
    policy.chmod(0o666)
    wish(place, HOST | {"subnets": ["203.0.113.0/24"]})
    until(lambda: place.log.read_text().count("must belong to root") >= 3, 20)
    assert "203.0.113.0/24" not in place.run("ip", "route", "show", "table", "7000")
    policy.chmod(0o644)
    until(lambda: "203.0.113.0/24" in place.run("ip", "route", "show", "table", "7000"))
