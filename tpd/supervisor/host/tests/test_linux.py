"""The real host's names, on a resolv.conf of its own and without a device."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest

from tpd.supervisor.host.journal import Journal
from tpd.supervisor.host.linux import LinuxHost, _Opened
from tpd.supervisor.host.resolver import resolved
from tpd.supervisor.host.resolver.choice import Adapter
from tpd.supervisor.host.types import Granted, Slot

SLOT = Slot(0, ipaddress.IPv4Address("198.19.254.1"), ipaddress.IPv4Address("198.19.254.2"))
GRANTED = Granted(dns=True, domains=("svc", "cluster.local"), search=("demo.svc.cluster.local",))
PLAIN = "nameserver 192.168.1.1\nsearch corp.example\n"
STUB = "nameserver 127.0.0.53\n"


class Bench:
    def __init__(self, folder: Path) -> None:
        self.conf = folder / "resolv.conf"
        self.conf.write_text(PLAIN)
        self.host = LinuxHost(state=folder, policy_file=folder / "policy.yaml", resolv_conf=self.conf)
        self.opened = _Opened(SLOT, "a", 1000, Journal(folder / "journal" / "tp0.jsonl"), 5)
        self.host._open[0] = self.opened
        self.host._news()

    def names(self) -> None:
        self.opened.granted = GRANTED
        asyncio.run(self.host._names(self.opened, GRANTED))

    def adapter(self) -> Adapter | None:
        return self.opened.adapter

    def upstreams(self) -> list[str]:
        return [str(address) for address in asyncio.run(self.host.upstreams()).addresses]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_only_what_others_write_is_news(bench: Bench) -> None:
    bench.names()
    assert not bench.host._news()
    bench.conf.write_text("nameserver 9.9.9.9\n")
    assert bench.host._news()
    bench.names()  # in answer to that
    bench.conf.write_text("nameserver 9.9.9.10\n")  # and they write once more before anybody looks again
    assert bench.host._news()
    bench.names()
    assert not bench.host._news()
    assert bench.upstreams() == ["9.9.9.10"]


def test_what_a_wish_has_answered_already_is_news_all_the_same(bench: Bench) -> None:
    bench.names()
    bench.conf.write_text("nameserver 9.9.9.9\n")
    bench.names()  # for another reason: the worker does not know yet whom to ask
    assert bench.host._news()
    assert not bench.host._news()


def test_what_is_written_behind_the_link_is_news(bench: Bench) -> None:
    bench.conf.rename(bench.conf.with_name("behind"))
    bench.conf.symlink_to("behind")
    bench.host._news()
    bench.names()
    assert not bench.host._news()
    bench.conf.with_name("behind").write_text("nameserver 9.9.9.9\n")
    assert bench.upstreams() == ["9.9.9.9"]
    assert bench.host._news()
    asyncio.run(bench.host.withdraw(SLOT))
    assert bench.conf.is_symlink()


@pytest.mark.parametrize("change", ["# mine\n", "nameserver 198.19.254.2\n"])
def test_there_is_always_a_resolver_beside_ours(bench: Bench, change: str) -> None:
    bench.names()
    bench.conf.write_text(bench.conf.read_text() + change)
    assert bench.upstreams() == ["192.168.1.1"]
    asyncio.run(bench.host.withdraw(SLOT))
    assert "nameserver 192.168.1.1\nsearch corp.example\n" in bench.conf.read_text()
    assert "198.19" not in bench.conf.read_text()


def test_nothing_but_ours_means_the_local_machine(bench: Bench) -> None:
    bench.conf.write_text("nameserver 198.19.254.2\n")
    assert bench.upstreams() == ["127.0.0.1"]


def test_the_adapter_follows_the_host(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def make(wanted: Sequence[resolved.Call]) -> None:
        calls.extend(method for method, _, _ in wanted)

    monkeypatch.setattr(resolved, "_make", make)
    bench.names()
    assert bench.adapter() is Adapter.FILE
    bench.conf.write_text(STUB)  # somebody switches systemd-resolved on
    bench.names()
    assert bench.adapter() is Adapter.RESOLVED
    assert bench.conf.read_text() == STUB
    assert "SetLinkDNS" in calls
    bench.conf.write_text(PLAIN)  # and off
    bench.names()
    assert calls[-1] == "RevertLink"
    assert "198.19.254.2" in bench.conf.read_text()
    asyncio.run(bench.host.withdraw(SLOT))
    assert bench.conf.read_text() == PLAIN
    assert [entry["kind"] for entry in bench.opened.journal.entries] == []
