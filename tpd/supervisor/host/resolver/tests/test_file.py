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

OPEN = os.open
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
        asyncio.run(self.adapter.apply(slot(index), search, self.journal, self.journal.entries))

    def undo(self) -> None:
        """As after a crash: from the journal on disk alone, and twice."""
        for _ in range(2):
            file.undo(read(self.journal.path)[1])


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


def test_what_somebody_else_edits_in_place_is_kept_with_the_originals_resolvers(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply("demo.svc.cluster.local")
    bench.path.write_text(bench.path.read_text().replace("ndots:1", "ndots:3"))
    theirs = "nameserver 192.168.1.1\noptions ndots:3\n"
    assert file.without_us(bench.path, file.snapshot(bench.path), bench.journal.entries)["text"] == theirs
    bench.apply("other.svc.cluster.local")
    assert "search other.svc.cluster.local\noptions ndots:3\n" in bench.path.read_text()
    bench.undo()
    assert bench.path.read_text() == theirs


def test_a_copy_of_ours_that_somebody_brings_back_means_what_it_meant(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    backup = bench.path.read_text()  # a VPN begins,
    bench.path.write_text("# by the VPN\nnameserver 10.8.0.1\n" + backup)
    bench.apply()
    assert bench.path.read_text().count("nameserver") == 1
    bench.path.write_text(backup)  # and ends
    bench.undo()
    assert bench.path.read_text() == ORIGINAL


def test_the_target_of_a_link_is_followed(bench: Bench) -> None:
    target = bench.path.parent / "target"
    target.write_text(ORIGINAL)
    bench.path.symlink_to("target")
    bench.apply()
    target.write_text("nameserver 192.168.2.1\nsearch new.example\n")
    assert "192.168.2.1" in file.without_us(bench.path, file.snapshot(bench.path), bench.journal.entries)["text"]
    bench.apply("demo.svc.cluster.local")
    assert "search demo.svc.cluster.local new.example" in bench.path.read_text()
    bench.undo()
    assert os.readlink(bench.path) == "target"


def test_what_is_written_between_reading_and_writing_is_not_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.path.write_text(ORIGINAL)
    fchmod, news = os.fchmod, ["nameserver 9.9.9.9\n"]

    def overtaken(fd: int, mode: int) -> None:
        fchmod(fd, mode)
        if news:
            bench.path.write_text(news.pop())

    monkeypatch.setattr(os, "fchmod", overtaken)
    bench.apply()
    bench.path.write_text(bench.path.read_text() + "# mine\n")
    news.append("nameserver 9.9.9.10\n")
    bench.undo()
    assert bench.path.read_text() == "nameserver 9.9.9.10\n"


def test_what_we_wrote_is_known(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    ours = bench.path.read_text()
    assert not bench.adapter.gone(file.snapshot(bench.path))
    bench.path.write_text(ours + "# mine\n")
    assert bench.adapter.gone(file.snapshot(bench.path))
    bench.path.unlink()
    assert bench.adapter.gone(file.snapshot(bench.path))


def test_what_a_full_disk_interrupts_is_as_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.path.write_text(ORIGINAL)
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if b"198.19" in bytes(data) and not bytes(data).startswith(b"{"):
            raise OSError(28, "No space left on device")
        return write(fd, data)

    def busy(source: Path, to: Path) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(HostError, match="No space left"):
        bench.apply()
    assert bench.path.read_text() == ORIGINAL
    monkeypatch.setattr(os, "open", lambda path, *rest: busy(path, path) if ".tpd" in str(path) else OPEN(path, *rest))
    with pytest.raises(HostError, match="No space left"):  # a bind mount is written in place
        bench.apply()
    assert bench.path.read_text() == ORIGINAL


def test_only_one_connection_can_have_it(bench: Bench) -> None:
    bench.path.write_text(ORIGINAL)
    bench.apply()
    with pytest.raises(HostError, match="only one connection"):
        bench.apply(index=1)
    bench.undo()
    bench.adapter.holder = None
    bench.apply(index=1)
    assert "198.19.254.6" in bench.path.read_text()
