"""`--port` and the table it makes."""

from __future__ import annotations

import pytest

from tpd.session.engagements.ports import PortMapping, declared_ports, mappings, parse
from tpd.session.errors import SessionError

DECLARED = [("http", 8080, "TCP"), ("dns", 5353, "UDP"), ("", 9090, "TCP")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", PortMapping(8080, 8080, "TCP")),
        ("3000:8080", PortMapping(3000, 8080, "TCP")),
        ("3000:http", PortMapping(3000, 8080, "TCP")),
        ("5300:dns", PortMapping(5300, 5353, "UDP")),
        ("5300:5353/udp", PortMapping(5300, 5353, "UDP")),
        ("1:65535/TCP", PortMapping(1, 65535, "TCP")),
    ],
)
def test_parse(text: str, expected: PortMapping) -> None:
    assert parse(text, DECLARED) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "1 to 65535"),
        ("65536:80", "1 to 65535"),
        ("80:99999", "1 to 65535"),
        ("http", "not a port"),
        ("", "not a port"),
        (":80", "not a port"),
        ("80:nope", "has http, dns"),
        ("80/sctp", "tcp or udp"),
        ("-1", "not a port"),
        ("٣", "not a port"),
    ],
)
def test_bad_ports_say_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(SessionError, match=says):
        parse(text, DECLARED)


def test_none_given_means_every_declared_port_to_itself() -> None:
    assert mappings([], DECLARED) == [
        PortMapping(8080, 8080, "TCP"),
        PortMapping(5353, 5353, "UDP"),
        PortMapping(9090, 9090, "TCP"),
    ]
    assert mappings([], []) == []
    assert mappings([], DECLARED, none=True) == []


def test_contradictions_are_refused() -> None:
    with pytest.raises(SessionError, match="exclude each other"):
        mappings(["80"], DECLARED, none=True)
    with pytest.raises(SessionError, match="mapped twice"):
        mappings(["80:8080", "81:http"], DECLARED)


def test_declared_ports_leaves_out_what_cannot_be_carried() -> None:
    container = {
        "ports": [
            {"containerPort": 80},
            {"containerPort": 53, "protocol": "UDP", "name": "dns"},
            {"containerPort": 36412, "protocol": "SCTP"},
        ]
    }
    assert declared_ports(container) == [("", 80, "TCP"), ("dns", 53, "UDP")]
