"""Port mappings as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import CommandError
from cli.ports import PortMapping, parse, parse_all


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", PortMapping(8080, 80)),
        ("80", PortMapping(80, 80)),
        ("5300:53/udp", PortMapping(5300, 53, "UDP")),
        ("53/UDP", PortMapping(53, 53, "UDP")),
        ("8080:80/tcp", PortMapping(8080, 80)),
        ("1:65535", PortMapping(1, 65535)),
    ],
)
def test_parse(text: str, expected: PortMapping) -> None:
    assert parse(text) == expected
    assert parse(expected.text()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "80:0",
        "80:65536",
        "a",
        "80:http",
        "-1",
        "80:",
        ":80",
        "80:80:80",
        "80/sctp",
        "80/",
        " ",
        "\uff18\uff10",
    ],
)
def test_what_is_no_mapping_is_a_sentence(text: str) -> None:
    with pytest.raises(CommandError, match="--port"):
        parse(text)


@given(st.text(max_size=20))
def test_any_text_is_a_mapping_or_a_sentence(text: str) -> None:
    try:
        mapping = parse(text)
    except CommandError:
        return
    assert 1 <= mapping.local <= 65535
    assert 1 <= mapping.container <= 65535


def test_a_container_port_goes_to_one_place() -> None:
    assert parse_all(["80", "53:53", "53:53/udp"]) == [
        PortMapping(80, 80),
        PortMapping(53, 53),
        PortMapping(53, 53, "UDP"),
    ]
    assert parse_all(["8080:80", "8080:81"]) == [PortMapping(8080, 80), PortMapping(8080, 81)]
    with pytest.raises(CommandError, match="container port 80 is mapped twice"):
        parse_all(["8080:80", "8081:80"])
    assert parse_all([]) == []
