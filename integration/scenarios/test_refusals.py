"""Honest answers: refused is refused, unreachable is unreachable, and no connection opens only to break."""

from __future__ import annotations

import time

import pytest

from integration.cluster import addresses
from integration.cluster.cluster import Cluster
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User, first_pod
from integration.scenarios.workloads import apply, echo, get, new_namespace

pytestmark = pytest.mark.cluster


def test_a_closed_port_of_a_pod_is_refused(person: User, cluster: Cluster, demo: str) -> None:
    address = first_pod(get(cluster, "pods", "-n", demo, "-l", "app=echo"))["status"]["podIP"]
    ((name, seconds),) = person.dial(f"{address}:81")
    assert name == "ECONNREFUSED"
    assert seconds < 2


def test_a_port_that_a_service_does_not_have_is_what_it_is_inside_the_cluster(person: User, demo: str) -> None:
    ((name, _),) = person.dial(f"echo.{demo}:81")
    assert name in {"ECONNREFUSED", "EHOSTUNREACH"}


@pytest.mark.usefixtures("local_cluster")
def test_an_address_that_nobody_has_is_unreachable_within_the_dial_limit(person: User) -> None:
    ((name, seconds),) = person.dial("10.244.0.250:80")
    assert name == "EHOSTUNREACH"
    assert seconds < 11


@pytest.mark.usefixtures("local_cluster")
@pytest.mark.parametrize("address", ["10.96.250.250", "10.244.0.1"])
def test_nothing_opens_where_nobody_listens(person: User, address: str) -> None:
    assert person.dial(f"{address}:4")[0][0] in {"ECONNREFUSED", "EHOSTUNREACH"}


def test_an_api_server_inside_an_announced_subnet_goes_on_working(
    people: UserFactory, local_cluster: Cluster, demo: str
) -> None:
    user = people()
    inside = f"https://{addresses.API_AMONG_SERVICES}:{addresses.API_PORT}"
    user.laptop.write_kubeconfig(local_cluster.kubeconfig("admin", ["system:masters"], server=inside))
    user.connect(demo)
    assert inside in user.tpctl("status")
    time.sleep(1)  # the routes are in force: requests of now on take them
    assert "echo" in user.ok("kubectl", "get", "pods", "-n", demo)
    assert user.curl("http://echo/")
    assert "connected" in user.tpctl("status")


@pytest.mark.usefixtures("local_cluster")
def test_a_subnet_that_the_laptop_routes_elsewhere_is_left_alone_and_named(people: UserFactory, demo: str) -> None:
    user = people()
    vpn = "ip link add vpn0 type veth peer name vpn1 && ip link set vpn0 up && ip route add 10.96.0.0/16 dev vpn0"
    user.laptop.run(["sh", "-c", vpn], user="root", check=True)
    user.start_daemon()
    said = user.tpctl("connect", "-n", demo)
    assert "left alone: 10.96.0.0/16 is already routed elsewhere by the laptop" in said
    connection = user.json("status")["connections"][0]["connection"]
    assert "10.96.0.0/16" not in connection["subnets"]
    assert any("10.96.0.0/16" in text for text in connection["left_alone"])
    assert "dev vpn0" in user.ok("ip", "route", "get", "10.96.0.10")


def nothing_of(user: User, name: str) -> bool:
    """Whether the name has no address: the laptop's own resolver knows none."""
    done = user.run("getent", "ahostsv4", name)
    return (done.returncode, done.stdout) == (2, "")


def test_a_namespace_called_com_captures_nothing(people: UserFactory, cluster: Cluster, demo: str) -> None:
    new_namespace(cluster, "com")
    try:
        apply(cluster, "com", echo(cluster.image("test"), "github"))
        user = people()
        user.connect(demo)
        assert nothing_of(user, "github.com")
        assert "github.com" in {entry["name"] for entry in user.laptop.questions()}
        assert user.curl("http://github.com.svc.cluster.local/")
    finally:
        cluster.kubectl("delete", "namespace", "com", "--wait=false")


def test_a_namespace_like_the_laptops_search_domain_captures_nothing(
    people: UserFactory, cluster: Cluster, demo: str
) -> None:
    new_namespace(cluster, "example")
    try:
        apply(cluster, "example", echo(cluster.image("test"), "corp"))
        user = people()
        user.connect(demo)
        assert nothing_of(user, "corp.example")
        assert "corp.example" in {entry["name"] for entry in user.laptop.questions()}
        assert user.ok("getent", "ahostsv4", "www.corp.example").split()[0] == "198.51.100.10"
    finally:
        cluster.kubectl("delete", "namespace", "example", "--wait=false")
