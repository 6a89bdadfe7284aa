"""resolv.conf as text: golden pairs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpd.supervisor.host.resolver import conf

OURS = ipaddress.ip_address("198.19.254.2")
CLUSTER = ("demo.svc.cluster.local", "svc.cluster.local")


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        ("", [], ()),
        ("nameserver 1.2.3.4\nnameserver fd00::1\n", ["1.2.3.4", "fd00::1"], ()),
        ("search a.example b.example.\nsearch c.example\n", [], ("c.example",)),
        ("domain Home.Example\n", [], ("home.example",)),
        ("; comment\n# nameserver 9.9.9.9\nnameserver 1.1.1.1 # mine\n nameserver 2.2.2.2", ["1.1.1.1", "2.2.2.2"], ()),
        ("nameserver\nnameserver x\nsearch .\noptions ndots:5", [], ()),
    ],
)
def test_parse(text: str, servers: list[str], search: tuple[str, ...]) -> None:
    parsed = conf.parse(text)
    assert [str(server) for server in parsed.nameservers] == servers
    assert parsed.search == search


def test_edit_keeps_comments_options_and_own_search() -> None:
    text = "# DHCP says\nnameserver 192.168.1.1\nsearch corp.example\noptions ndots:2 edns0\nsortlist 10.0.0.0\n"
    assert (
        conf.edit(text, OURS, CLUSTER)
        == f"""\
{conf.MARK}
nameserver 198.19.254.2
search demo.svc.cluster.local svc.cluster.local corp.example
# DHCP says
options ndots:2 edns0
sortlist 10.0.0.0
"""
    )


def test_edit_of_nothing() -> None:
    assert conf.edit("", OURS, ()) == f"{conf.MARK}\nnameserver 198.19.254.2\n"


@given(st.text(alphabet="nameserch 0123456789.:#;\n\toptidm", max_size=200))
def test_an_edited_file_names_our_resolver_alone_and_undo_brings_the_original_back(text: str) -> None:
    ours = conf.edit(text, OURS, CLUSTER)
    parsed = conf.parse(ours)
    assert parsed.nameservers == (OURS,)
    assert parsed.search[: len(CLUSTER)] == CLUSTER
    assert conf.rebase(ours, ours, text, str(OURS)) == text
    assert conf.rebase(text, ours, text, str(OURS)) == text


def test_a_torn_write_was_the_original() -> None:
    ours = conf.edit("nameserver 1.1.1.1\n", OURS, ())
    assert conf.rebase(ours[:20], ours, "nameserver 1.1.1.1\n", str(OURS)) == "nameserver 1.1.1.1\n"
    assert conf.rebase("", ours, "nameserver 1.1.1.1\n", str(OURS)) == "nameserver 1.1.1.1\n"


def test_what_somebody_else_wrote_is_theirs() -> None:
    ours = conf.edit("nameserver 1.1.1.1\n", OURS, ())
    assert conf.rebase("nameserver 9.9.9.9\n", ours, "nameserver 1.1.1.1\n", str(OURS)) == "nameserver 9.9.9.9\n"


ORIGINAL = "# DHCP says\nnameserver 1.1.1.1\nnameserver fe80::1%wlan0\nsearch corp.example\noptions ndots:2\n"


@pytest.mark.parametrize(
    ("change", "without_us"),
    [
        (  # sed -i on what we wrote
            lambda text: text.replace("ndots:2", "ndots:5"),
            "nameserver 1.1.1.1\nnameserver fe80::1%wlan0\nsearch corp.example\n# DHCP says\noptions ndots:5\n",
        ),
        (  # a VPN puts its resolver in front of what it finds
            lambda text: "nameserver 10.8.0.1\n" + text,
            "nameserver 10.8.0.1\nnameserver 1.1.1.1\nnameserver fe80::1%wlan0\nsearch corp.example\n# DHCP says\n"
            "options ndots:2\n",
        ),
        (  # or behind it, and one of the original's again
            lambda text: text + "nameserver 1.1.1.1\nnameserver 9.9.9.9",
            "nameserver fe80::1%wlan0\nsearch corp.example\n# DHCP says\noptions ndots:2\n"
            "nameserver 1.1.1.1\nnameserver 9.9.9.9",
        ),
        (  # or its search domains
            lambda text: text.replace("search ", "search vpn.example "),
            "nameserver 1.1.1.1\nnameserver fe80::1%wlan0\nsearch vpn.example corp.example\n# DHCP says\n"
            "options ndots:2\n",
        ),
        (lambda text: text.replace(" corp.example", ""), ORIGINAL.replace("search corp.example\n", "")),
        (lambda text: f"nameserver {OURS}\n", "nameserver 1.1.1.1\nnameserver fe80::1%wlan0\n"),
        (lambda text: f"{conf.MARK}\nnameserver 9.9.9.9\n", f"{conf.MARK}\nnameserver 9.9.9.9\n"),
    ],
)
def test_what_somebody_else_edited_in_place_without_us(change: Callable[[str], str], without_us: str) -> None:
    ours = conf.edit(ORIGINAL, OURS, CLUSTER)
    current = change(ours)
    assert current != ours
    text = conf.rebase(current, ours, ORIGINAL, str(OURS))
    assert sorted(text.splitlines()) == sorted(without_us.splitlines())
    assert conf.parse(text) == conf.parse(without_us)


@given(st.text(alphabet="nameserch 0123456789.:#;\n\toptidm", max_size=200), st.integers(0, 300), st.text(max_size=20))
def test_no_edit_of_our_text_leaves_our_resolver_in_it(original: str, at: int, inserted: str) -> None:
    ours = conf.edit(original, OURS, CLUSTER)
    current = ours[:at] + inserted + ours[at:]
    text = conf.rebase(current, ours, original, str(OURS))
    assert OURS not in conf.parse(text).nameservers
    assert conf.rebase(text, ours, original, str(OURS)) in (text, original)


def test_another_connections_mark_stays() -> None:
    first = conf.edit(ORIGINAL, OURS, ())
    second = conf.edit(ORIGINAL, ipaddress.ip_address("198.19.254.6"), ())
    assert conf.rebase(second, first, ORIGINAL, str(OURS)) == second
