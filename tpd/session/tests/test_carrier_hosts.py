"""Where the API server is found when its name is like one of the cluster: in /etc/hosts, or as before us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

from tpd.session.carrier_hosts import CarrierHosts, in_hosts, whole_names
from tpd.session.dns.question import Question


class Resolvers:
    """Answers from `known`, by (name, kind); UDP answers are cut when `cuts`."""

    def __init__(self, known: dict[tuple[str, str], str], *, cuts: bool = False, says: bytes | None = None) -> None:
        self.known = known
        self.cuts = cuts
        self.says = says
        self.asked: list[str] = []

    async def ask(self, message: bytes, question: Question, *, tcp: bool) -> bytes | None:
        if self.says is not None:
            return self.says
        query = dns.message.from_wire(message)
        name, kind = query.question[0].name, dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append(name.to_text())
        reply = dns.message.make_response(query)
        address = self.known.get((name.to_text(), kind))
        if self.cuts and not tcp:
            reply.flags |= dns.flags.TC
        elif address:
            reply.answer.append(dns.rrset.from_text(name, 5, "IN", "CNAME", "lb.example."))
            reply.answer.append(dns.rrset.from_text("lb.example.", 5, "IN", kind, address))
        return reply.to_wire()


def resolve(
    host: str, upstream: Resolvers, hosts: Path, *, clusters: bool = True, search: Sequence[str] = ()
) -> tuple[list[str], list[Sequence[str]]]:
    """What is found, and what is told before."""
    told: list[Sequence[str]] = []

    async def tell(addresses: Sequence[str]) -> None:
        told.append(addresses)

    tested = CarrierHosts(
        upstream, search=lambda: search, is_clusters=lambda _: clusters, on_addresses=tell, hosts=hosts
    )
    return asyncio.run(tested.resolve(host)), told


KNOWN = {("api.example.", "A"): "192.0.2.1", ("api.example.", "AAAA"): "2001:db8::1"}


def test_the_laptop_s_own_resolvers_are_asked(tmp_path: Path) -> None:
    for upstream in (Resolvers(KNOWN), Resolvers(KNOWN, cuts=True)):
        found = resolve("api.example", upstream, tmp_path / "missing")
        assert found == (["192.0.2.1", "2001:db8::1"], [["192.0.2.1", "2001:db8::1"]])


def test_etc_hosts_comes_first(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# mine\n127.0.0.1 localhost\n10.1.2.3\tdb API.example api # the cluster\n::2 api.example\n\n")
    upstream = Resolvers(KNOWN)
    assert resolve("api.example", upstream, hosts)[0] == ["10.1.2.3", "::2"]
    assert upstream.asked == []
    assert in_hosts(hosts.read_text(), "cluster") == []


def test_what_is_not_the_cluster_s_the_system_knows(tmp_path: Path) -> None:
    upstream = Resolvers({})
    found, told = resolve("127.0.0.1", upstream, tmp_path / "missing", clusters=False)
    assert found == ["127.0.0.1"]
    assert told == [found]
    assert upstream.asked == []


def test_a_name_without_dots_is_looked_for_in_the_search_list(tmp_path: Path) -> None:
    upstream = Resolvers(KNOWN)
    found, _ = resolve("api", upstream, tmp_path / "missing", search=["corp.test", "example"])
    assert found == ["192.0.2.1", "2001:db8::1"]
    assert whole_names("api", ["corp.test"]) == ["api.corp.test", "api"]
    assert whole_names("api.prod", ["corp.test"]) == ["api.prod", "api.prod.corp.test"]
    assert whole_names("api.prod.", ["corp.test"]) == ["api.prod."]


def test_nothing_and_garbage_are_nothing(tmp_path: Path) -> None:
    assert resolve("api.example", Resolvers({}), tmp_path / "missing")[0] == []
    assert resolve("api.example", Resolvers({}, says=b"\0" * 11), tmp_path / "missing")[0] == []
    assert resolve("a..b", Resolvers({}), tmp_path / "missing")[0] == []
