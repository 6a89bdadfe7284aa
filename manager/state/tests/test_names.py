import contextlib

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.state import names


def _candidates(name: str) -> list[str]:
    found = names.candidates(dns.name.from_text(name), "shop", "cluster.local")
    return [each.to_text(omit_final_dot=True) for each in found]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("echo", ["echo.shop.svc.cluster.local"]),
        ("ECHO", ["ECHO.shop.svc.cluster.local"]),
        ("echo.demo", ["echo.demo.shop.svc.cluster.local", "echo.demo.svc.cluster.local"]),
        ("_http._tcp.echo", ["_http._tcp.echo.shop.svc.cluster.local", "_http._tcp.echo.svc.cluster.local"]),
        ("echo.demo.svc", ["echo.demo.svc.cluster.local"]),
        ("echo.demo.svc.cluster.local", ["echo.demo.svc.cluster.local"]),
        ("10.0.96.10.in-addr.arpa", ["10.0.96.10.in-addr.arpa"]),
        ("1.ip6.arpa", ["1.ip6.arpa"]),
    ],
)
def test_names_mean_what_they_mean_in_a_pod(asked: str, meant: list[str]) -> None:
    assert _candidates(asked) == meant


@given(st.lists(st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), min_size=1, max_size=6))
def test_nothing_outside_the_cluster_is_ever_asked(labels: list[str]) -> None:
    if sum(len(label) + 1 for label in labels) > 250:
        return
    for name in _candidates(".".join(labels)):
        assert name.endswith((".cluster.local", "in-addr.arpa", "ip6.arpa")) or name == "cluster.local"


def test_a_name_too_long_for_the_search_path_has_no_candidates() -> None:
    assert _candidates(".".join(["a" * 60] * 4)) == []


def test_the_domain_is_found_in_the_search_list() -> None:
    assert names.domain_of(["x.svc.k8s.example.", "svc.k8s.example.", "k8s.example."]) == "k8s.example"
    assert names.domain_of(["corp.example"]) == "cluster.local"


@pytest.mark.parametrize("message", [b"", b"x" * 11, b"\0" * 12, dns.message.Message(id=1).to_wire()])
def test_what_is_no_question_is_not_answered(message: bytes) -> None:
    with pytest.raises(names.Malformed):
        names.parse(message)


@given(st.binary(max_size=64))
def test_garbage_is_parsed_or_malformed(message: bytes) -> None:
    with contextlib.suppress(names.Malformed):
        names.parse(message)


def _answer(
    name: str, *records: str, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, kind: str = "A"
) -> dns.message.Message:
    answer = dns.message.make_response(dns.message.make_query(name, kind))
    answer.set_rcode(rcode)
    for record in records:
        owner, rdtype, value = record.split(" ", 2)
        answer.answer.append(dns.rrset.from_text(owner, 5, "IN", rdtype, value))
    return answer


def _nothing(name: str) -> dns.message.Message:
    return _answer(name, rcode=dns.rcode.NXDOMAIN)


def test_the_first_candidate_with_records_counts() -> None:
    found = _answer("b.", "b. A 10.0.0.1")
    assert names.choose([_nothing("a."), found]) == 1
    assert names.choose([_answer("a.", "a. A 10.0.0.2"), found]) == 0


def test_a_name_that_exists_without_such_records_is_no_nxdomain() -> None:
    assert names.choose([_answer("a."), _nothing("b.")]) == 0
    assert names.choose([_nothing("a."), _answer("b.")]) == 1
    assert names.choose([_nothing("a."), _nothing("b.")]) == 0


def test_an_answer_that_is_missing_is_not_replaced_by_a_less_preferred_one() -> None:
    found = _answer("b.", "b. A 10.0.0.1")
    assert names.choose([None, found]) is None
    assert names.choose([_answer("a.", rcode=dns.rcode.SERVFAIL), found]) is None
    assert names.choose([]) is None


def test_the_answer_comes_under_the_name_that_was_asked() -> None:
    query = dns.message.make_query("_http._tcp.echo.", "SRV")
    meant = "_http._tcp.echo.shop.svc.cluster.local."
    answer = _answer(meant, f"{meant} SRV 0 100 80 echo.shop.svc.cluster.local.", kind="SRV")
    reply = dns.message.from_wire(names.reply(query, answer))
    assert reply.id == query.id
    assert reply.question == query.question
    assert [rrset.to_text() for rrset in reply.answer] == [
        "_http._tcp.echo. 5 IN SRV 0 100 80 echo.shop.svc.cluster.local."
    ]
    assert reply.flags & dns.flags.RA


def test_no_answer_is_servfail() -> None:
    query = dns.message.make_query("echo.", "A")
    assert dns.message.from_wire(names.reply(query, None)).rcode() == dns.rcode.SERVFAIL


def test_the_question_is_asked_for_another_name_with_the_same_type() -> None:
    query = dns.message.make_query("echo.", "AAAA", use_edns=0)
    asked = dns.message.from_wire(names.expanded(query, dns.name.from_text("echo.shop.svc.cluster.local"), 7))
    assert (asked.id, asked.question[0].rdtype, asked.edns) == (7, dns.rdatatype.AAAA, 0)
