"""Which adapter, and which resolvers are the laptop's own."""

from __future__ import annotations

import pytest

from tpd.supervisor.host.resolver.choice import Adapter, Probe, choose, upstreams

STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
UPLINK = "nameserver 192.168.1.1\nnameserver 9.9.9.9\nsearch home.example\n"
PLAIN = "nameserver 192.168.1.1\nsearch corp.example\n"


def probe(
    text: str | None = PLAIN,
    *,
    link: str = "",
    uplink: str | None = None,
    resolved: bool = False,
    writable: bool = True,
) -> Probe:
    return Probe(resolv_conf=text, link=link, uplink_conf=uplink, resolved=resolved, writable=writable)


@pytest.mark.parametrize(
    ("found", "adapter"),
    [
        (probe(STUB, uplink=UPLINK, resolved=True), Adapter.RESOLVED),
        (probe(STUB, uplink=UPLINK, resolved=True, writable=False), Adapter.RESOLVED),
        (probe(STUB, uplink=UPLINK, resolved=False), Adapter.FILE),  # the stub is dead: nothing answers anyway
        (probe(UPLINK, uplink=UPLINK, resolved=True), Adapter.FILE),  # programs go past systemd-resolved
        (probe("nameserver 127.0.0.53\nnameserver 8.8.8.8\n", resolved=True), Adapter.FILE),
        (probe(PLAIN), Adapter.FILE),
        (probe(None), Adapter.FILE),
        (probe(""), Adapter.FILE),
        (probe("", resolved=True), Adapter.FILE),
        (probe(PLAIN, writable=False), Adapter.NONE),
    ],
)
def test_choose(found: Probe, adapter: Adapter) -> None:
    assert choose(found) is adapter


def test_upstreams_are_behind_the_stub() -> None:
    found = upstreams(probe(STUB, uplink=UPLINK, resolved=True))
    assert [str(address) for address in found.addresses] == ["192.168.1.1", "9.9.9.9"]
    assert found.search == ("home.example",)


def test_upstreams_of_a_plain_file() -> None:
    found = upstreams(probe(PLAIN, uplink=UPLINK))
    assert [str(address) for address in found.addresses] == ["192.168.1.1"]
    assert found.search == ("corp.example",)


def test_without_any_the_local_machine_is_asked() -> None:
    assert [str(address) for address in upstreams(probe(None)).addresses] == ["127.0.0.1"]


def test_the_probe_is_one_line() -> None:
    assert probe(STUB, link="../run/x", uplink=UPLINK, resolved=True).text() == (
        "resolv.conf=present link=../run/x nameservers=127.0.0.53 resolved=yes uplinks=yes writable=yes"
    )
