"""Which names of the cluster a laptop means, and the answer under the name it asked for.

A question comes as a raw DNS message (RFC 1035). The laptop's resolver knows nothing of the connected namespace, so
its search path is applied here: `echo` → `echo.NS.svc.DOMAIN`; `echo.shop` → a pod of a headless service in the
connected namespace, or a service in namespace `shop`.
"""

from __future__ import annotations

from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_REVERSE = (dns.name.from_text("in-addr.arpa."), dns.name.from_text("ip6.arpa."))
_SVC = dns.name.from_text("svc.")


class Malformed(ValueError):
    """Not a DNS question that can be answered."""


def parse(message: bytes) -> dns.message.QueryMessage:
    """A question of exactly one name. Raises `Malformed`."""
    try:
        query = dns.message.from_wire(message)
    except (dns.exception.DNSException, ValueError) as error:
        raise Malformed(str(error)) from error
    if not isinstance(query, dns.message.QueryMessage) or query.flags & dns.flags.QR or len(query.question) != 1:
        raise Malformed("not a question of one name")
    return query


def domain_of(search: Sequence[str]) -> str:
    """The cluster's domain from the search list of a pod's /etc/resolv.conf (`NS.svc.D svc.D D`)."""
    for entry in search:
        entry = entry.rstrip(".").lower()
        if entry.startswith("svc."):
            return entry.removeprefix("svc.")
    return "cluster.local"


def candidates(name: dns.name.Name, namespace: str, domain: str) -> list[dns.name.Name]:
    """The cluster's names that `name` may mean, the preferred first. None of them lies outside the cluster."""
    cluster = dns.name.from_text(domain)
    if name.is_subdomain(cluster) or any(name.is_subdomain(zone) for zone in _REVERSE):
        return [name]
    relative = name.relativize(dns.name.root)
    if name.is_subdomain(_SVC):
        paths = [cluster]
    elif len(relative.labels) == 1:
        paths = [_within(namespace, cluster)]
    else:
        paths = [_within(namespace, cluster), dns.name.Name(("svc",)).concatenate(cluster)]
    result = []
    for path in paths:
        try:
            result.append(relative.concatenate(path))
        except dns.name.NameTooLong:
            continue
    return result


def _within(namespace: str, cluster: dns.name.Name) -> dns.name.Name:
    return dns.name.Name((namespace, "svc")).concatenate(cluster)


def expanded(query: dns.message.QueryMessage, name: dns.name.Name, identifier: int) -> bytes:
    """The same question for another name, as the cluster's resolver is to be asked."""
    question = query.question[0]
    other = dns.message.QueryMessage(id=identifier)
    other.flags = (query.flags & ~dns.flags.AD) | dns.flags.RD
    other.question = [dns.rrset.RRset(name, question.rdclass, question.rdtype)]
    other.use_edns(0 if query.edns >= 0 else -1, payload=4096)
    return other.to_wire()


def choose(answers: Sequence[dns.message.Message | None]) -> int | None:
    """Which candidate's answer counts: the first with records; else the first name that exists; else a name that
    does not. None when what is missing might have been the answer."""
    exists: int | None = None
    for index, answer in enumerate(answers):
        if answer is None or answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            # A preferred name's answer is unknown: a later one's records must not stand for it.
            return exists
        if answer.rcode() == dns.rcode.NOERROR:
            if answer.answer:
                return index
            exists = index if exists is None else exists
    if exists is not None:
        return exists
    return 0 if answers else None


def reply(query: dns.message.QueryMessage, answer: dns.message.Message | None) -> bytes:
    """The answer under the question's own name and id: owner names equal to the expanded one are renamed back.

    Without an answer: SERVFAIL.
    """
    response = dns.message.make_response(query, recursion_available=True)
    if answer is None:
        response.set_rcode(dns.rcode.SERVFAIL)
        return response.to_wire()
    asked = query.question[0].name
    meant = answer.question[0].name if answer.question else asked
    response.set_rcode(answer.rcode())
    response.flags |= answer.flags & dns.flags.AA
    for ours, theirs in ((response.answer, answer.answer), (response.authority, answer.authority)):
        for rrset in theirs:
            ours.append(_renamed(rrset, meant, asked))
    response.additional.extend(answer.additional)
    return response.to_wire(max_size=65535)


def _renamed(rrset: dns.rrset.RRset, meant: dns.name.Name, asked: dns.name.Name) -> dns.rrset.RRset:
    if rrset.name != meant:
        return rrset
    return dns.rrset.from_rdata_list(asked, rrset.ttl, list(rrset))
