"""Editing a real file and bringing it back, whatever it was and whoever came between."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
from pathlib import Path

import pytest

from tpd.supervisor.host.journal import Journal, read
from tpd.supervisor.host.resolver import file
from tpd.supervisor.host.resolver.file import ResolvConfFile
from tpd.supervisor.host.types import HostError, Slot

ORIGINAL = "nameserver 192.168.1.1\noptions ndots:1\n"


def slot(index: int = 0) -> Slot:
    return Slot(
        index,
        ipaddress.IPv4Address(f"198.19.254.{4 * index + 1}"),
        ipaddress.IPv4Address(f"198.19.254.{4 * index + 2}"),
    )


class Bench:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "resolv.conf"
        self.journal = Journal(folder / "tp0.jsonl")
        self.adapter = ResolvConfFile(self.path)

    def apply(self, *search: str, index: int = 0) -> None:
        asyncio.run(self.adapter.apply(slot(index), 1, search, (), self.journal))

    def undo(self) -> None:
        """As after a crash: from the journal on disk alone, and twice."""
        for _ in range(2):
            for entry in reversed(read(self.journal.path)[1]):
                file.undo(entry)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_edit_and_undo(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.path.chmod(0o640)
    bench.apply("demo.svc.cluster.local")
    assert "nameserver 198.19.254.2\nsearch demo.svc.cluster.local\n" in bench.path.read_text()
    bench.apply("other.svc.cluster.local")
    bench.apply("other.svc.cluster.local")
    assert bench.path.read_text().count("nameserver") == 1
    bench.undo()
    assert bench.path.read_text() == ORIGINAL
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o640
    assert [path.name for path in bench.path.parent.iterdir() if "resolv" in path.name] == ["resolv.conf"]


def test_a_link_comes_back_as_a_link(bench: Bench) -> None:
    target = bench.path.parent / "target"
    target.write_text(ORIGINAL)
    bench.path.symlink_to("target")
    bench.apply()
    assert not bench.path.is_symlink()
    assert "198.19.254.2" in bench.path.read_text()
    bench.undo()
    assert os.readlink(bench.path) == "target"
    assert target.read_text() == ORIGINAL


def test_a_dangling_link_comes_back(bench: Bench) -> None:
    bench.path.symlink_to("nowhere")
    bench.apply()
    bench.undo()
    assert os.readlink(bench.path) == "nowhere"


def test_no_file_comes_back_as_no_file(bench: Bench) -> None:
    bench.apply()
    assert bench.path.exists()
    bench.undo()
    assert not bench.path.exists()


def test_what_somebody_else_wrote_meanwhile_stays(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    bench.path.write_text("nameserver 9.9.9.9\n")
    bench.undo()
    assert bench.path.read_text() == "nameserver 9.9.9.9\n"


def test_after_somebody_else_wrote_theirs_is_what_comes_back(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    bench.path.write_text("nameserver 9.9.9.9\nsearch dhcp.example\n")
    bench.apply("demo.svc.cluster.local")
    assert "search demo.svc.cluster.local dhcp.example" in bench.path.read_text()
    bench.undo()
    assert bench.path.read_text() == "nameserver 9.9.9.9\nsearch dhcp.example\n"


def test_a_crash_between_journal_and_write_changes_nothing(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    original = file.snapshot(bench.path)
    bench.journal.record("file", path=str(bench.path), ours="new", original=original, nameserver="198.19.254.2")
    bench.undo()
    assert bench.path.read_text() == ORIGINAL


def test_bytes_that_are_no_text_survive(bench: Bench) -> None:
    data = b"# caf\xe9\nnameserver 192.168.1.1\n"
    bench.path.write_bytes(data)
    bench.apply()
    bench.undo()
    assert bench.path.read_bytes() == data


def test_only_one_connection_can_have_it(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    with pytest.raises(HostError, match="only one connection"):
        bench.apply(index=1)
    asyncio.run(bench.adapter.withdraw(slot(0), 1, bench.journal))
    assert bench.path.read_text() == ORIGINAL
    bench.apply(index=1)
    assert "198.19.254.6" in bench.path.read_text()
