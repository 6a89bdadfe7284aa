"""Everything of the cluster by name and by address; everything else as before."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import ResolverKind
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User, first_pod
from integration.scenarios.workloads import HTTP, get

pytestmark = pytest.mark.cluster

_ASK = """
import sys, dns.resolver
answer = dns.resolver.resolve(sys.argv[1], sys.argv[2], search=False, lifetime=5)
print(*sorted(r.to_text() for r in answer), sep="\\n")
"""


def ask(person: User, name: str, kind: str = "A") -> list[str]:
    return person.python(_ASK, name, kind).split("\n")[:-1]


@pytest.mark.parametrize("rest", ["", ".{}", ".{}.svc", ".{}.svc.cluster.local", ".{}.svc.cluster.local."])
def test_a_service_answers_by_any_of_its_names(person: User, demo: str, rest: str) -> None:
    assert json.loads(person.curl(f"http://echo{rest.format(demo)}/"))["method"] == "GET"


def test_a_service_and_a_pod_answer_by_address(person: User, cluster: Cluster, demo: str) -> None:
    service = get(cluster, "service", "echo", "-n", demo)["spec"]["clusterIP"]
    pod = first_pod(get(cluster, "pods", "-n", demo, "-l", "app=echo"))
    assert json.loads(person.curl(f"http://{service}/"))["pod"] == pod["metadata"]["name"]
    assert json.loads(person.curl(f"http://{pod['status']['podIP']}:{HTTP}/"))["pod"] == pod["metadata"]["name"]


def test_a_headless_name_has_the_pods_addresses(person: User, cluster: Cluster, demo: str) -> None:
    pods = get(cluster, "pods", "-n", demo, "-l", "app=echo")["items"]
    assert ask(person, f"echo-headless.{demo}.svc.cluster.local") == sorted(p["status"]["podIP"] for p in pods)
    assert json.loads(person.curl(f"http://echo-headless:{HTTP}/"))["method"] == "GET"


def test_every_record_type_is_answered(person: User, cluster: Cluster, demo: str) -> None:
    service = get(cluster, "service", "echo", "-n", demo)["spec"]["clusterIP"]
    assert ask(person, f"_http._tcp.echo.{demo}.svc.cluster.local", "SRV") == [
        f"0 100 80 echo.{demo}.svc.cluster.local."
    ]
    assert ask(person, "dns-version.cluster.local", "TXT") == ['"1.1.0"']
    reverse = ".".join(reversed(service.split("."))) + ".in-addr.arpa"
    assert ask(person, reverse, "PTR") == [f"echo.{demo}.svc.cluster.local."]


def test_a_name_without_aaaa_exists_all_the_same(person: User, demo: str) -> None:
    source = f"""
import sys, dns.resolver
try:
    dns.resolver.resolve("echo.{demo}.svc.cluster.local", "AAAA", search=False, lifetime=5)
except dns.resolver.NoAnswer:
    print("no such record")
"""
    assert person.python(source) == "no such record\n"


def test_names_of_the_cluster_that_do_not_exist_say_so_at_once(person: User, demo: str) -> None:
    done = person.run("curl", "-sS", "--max-time", "5", f"http://nobody.{demo}.svc.cluster.local/")
    assert (done.returncode, "Could not resolve host" in done.stderr) == (6, True)


def test_other_names_are_answered_by_the_laptops_own_resolver(person: User) -> None:
    assert person.ok("getent", "ahostsv4", "www.corp.example").split()[0] == "198.51.100.10"
    assert person.ok("getent", "ahostsv4", "intranet").split()[0]


def test_no_name_reaches_the_wrong_resolver(person: User, cluster: Cluster, demo: str) -> None:
    log = cluster.places.root / "questions.jsonl"
    for name in ("echo", f"echo.{demo}", f"echo.{demo}.svc.cluster.local", "www.corp.example", "example.org"):
        person.run("getent", "ahostsv4", name)
    mine = person.laptop.questions()
    names = {entry["name"].lower() for entry in mine}
    assert {"www.corp.example", "example.org"} <= names
    assert {name for name in names if name.endswith((".local", ".svc", f".{demo}"))} == set()
    upstream = [json.loads(line) for line in log.read_text().splitlines()]
    upstream = [entry for entry in upstream if entry["resolver"] == "cluster"]
    assert {entry["name"] for entry in [*mine, *upstream] if entry["name"].lower().startswith("echo")} == set()
    assert {entry["name"] for entry in upstream if "corp" in entry["name"]} == set()


# Names that differ every time, so that nobody's cache answers; they do not exist.
_LOOKUPS = """
import socket, statistics, sys, time
def lookup(number):
    begun = time.monotonic()
    try:
        socket.getaddrinfo(f"{sys.argv[1]}{number}.corp.example.", 80, socket.AF_INET)
    except socket.gaierror:
        return time.monotonic() - begun
print(statistics.median(map(lookup, range(100))))
"""


@pytest.mark.parametrize("resolver", ["file", "systemd-resolved"])
def test_other_names_are_answered_as_fast_as_without_a_connection(
    people: UserFactory, demo: str, resolver: ResolverKind, record_property: Callable[[str, object], None]
) -> None:
    user = people(resolver=resolver)
    user.start_daemon()
    alone = float(user.python(_LOOKUPS, "alone"))
    user.tpctl("connect", "-n", demo)
    connected = float(user.python(_LOOKUPS, "connected"))
    assert "connected7.corp.example" in {entry["name"] for entry in user.laptop.questions()}
    record_property(f"lookup alone and connected, {resolver}, ms", f"{alone * 1000:.2f} {connected * 1000:.2f}")
    assert connected < 3 * alone + 0.005
    user.tpctl("quit")
