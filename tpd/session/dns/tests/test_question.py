"""Reading questions and making replies, compared with dnspython's messages."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st

from tpd.session.dns.question import (
    NXDOMAIN,
    answers_to,
    failure,
    fitted,
    parse,
    rcode,
    udp_limit,
    with_name,
)


def query(name: str = "Echo.demo.", kind: str = "AAAA", **options: int) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]  # options of several types


def test_parse() -> None:
    message = query()
    question = parse(message)
    assert question is not None
    assert question.labels == ("echo", "demo")
    assert question.name == b"\4Echo\4demo\0"
    assert question.qtype == dns.rdatatype.AAAA
    assert question.is_query
    assert question.end == len(message)


@given(st.binary(max_size=80))
def test_garbage_never_breaks_it(data: bytes) -> None:
    question = parse(data)
    if question is not None:
        udp_limit(data, question)
        answers_to(data, question)


@given(st.binary(max_size=60))
def test_garbage_behind_a_question_never_breaks_it(tail: bytes) -> None:
    message = query()
    question = parse(message)
    assert question is not None
    assert udp_limit(message[:6] + b"\0\1\0\1\0\1" + message[12:] + tail, question) >= 512


def test_a_response_is_not_a_question() -> None:
    assert parse(dns.message.make_response(dns.message.from_wire(query())).to_wire()) is None


def test_failure_is_a_proper_reply() -> None:
    message = query()
    question = parse(message)
    assert question is not None
    reply = dns.message.from_wire(failure(question, NXDOMAIN))
    assert reply.is_response is not None
    assert dns.message.from_wire(message).is_response(reply)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.flags & dns.flags.RA
    assert rcode(failure(question, NXDOMAIN)) == NXDOMAIN


def test_answers_to_ignores_case_but_nothing_else() -> None:
    message = query()
    question = parse(message)
    assert question is not None
    reply = failure(question, 0)
    assert answers_to(reply, question)
    assert answers_to(with_name(reply, b"\4eCHO\4DEMO\0"), question)
    assert not answers_to(with_name(reply, b"\4eCHX\4DEMO\0"), question)
    assert not answers_to(message, question)
    assert not answers_to(bytes([reply[0] ^ 1]) + reply[1:], question)
    assert not answers_to(reply[:-1] + b"\2", question)


def test_udp_limit_and_fitting() -> None:
    plain, large = query(), query(use_edns=0, payload=1232)
    for message, limit in ((plain, 512), (large, 1232)):
        question = parse(message)
        assert question is not None
        assert udp_limit(message, question) == limit
        reply = failure(question, 0) + b"\0" * 1300
        short = dns.message.from_wire(fitted(reply, question, limit))
        assert short.flags & dns.flags.TC
        assert dns.message.from_wire(message).is_response(short)
        assert fitted(reply[:limit], question, limit) == reply[:limit]
