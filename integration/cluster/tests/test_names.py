"""What the resolvers of the outside world answer and note."""

import io
import json

import dns.message
import dns.name
import dns.rcode
import pytest

from integration.cluster.names import Resolver

TABLE = {dns.name.from_text("www.corp.example"): "198.51.100.10"}


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("www.corp.example", "A", dns.rcode.NOERROR, ["198.51.100.10"]),
        ("www.corp.example", "AAAA", dns.rcode.NOERROR, []),
        ("WWW.corp.EXAMPLE", "A", dns.rcode.NOERROR, ["198.51.100.10"]),
        ("other.corp.example", "A", dns.rcode.NXDOMAIN, []),
        ("echo", "A", dns.rcode.NXDOMAIN, []),
        ("echo.demo.svc.cluster.local", "A", dns.rcode.REFUSED, []),
    ],
)
def test_answers(name: str, kind: str, code: dns.rcode.Rcode, addresses: list[str]) -> None:
    log = io.StringIO()
    wire = Resolver("lan", TABLE, log).answer(dns.message.make_query(name, kind).to_wire(), "192.168.57.10")
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert response.rcode() == code
    assert [item.to_text() for rrset in response.answer for item in rrset] == addresses
    noted = json.loads(log.getvalue())
    assert (noted["client"], noted["name"], noted["type"]) == ("192.168.57.10", name, kind)


@pytest.mark.parametrize("wire", [b"", b"\0" * 5, b"\xff" * 40])
def test_garbage_is_not_answered(wire: bytes) -> None:
    assert Resolver("lan", TABLE, io.StringIO()).answer(wire, "192.168.57.10") is None
