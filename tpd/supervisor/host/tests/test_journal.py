"""What is written before a change can be read after any crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tpd.supervisor.host import journal
from tpd.supervisor.host.journal import Journal


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal" / "tp0.jsonl"
    record = Journal(path)
    record.record("device", device="tp0")
    record.record("rule", version=4, priority=7000, table=254, suppress=True)
    record.record("device", device="tp0")  # the same again is not written twice
    record.close()
    boot, entries = journal.read(path)
    assert boot == journal.boot_id()
    assert [entry["kind"] for entry in entries] == ["device", "rule"]
    assert entries[1]["suppress"] is True
    assert list(journal.left_behind(tmp_path / "journal")) == [path]


@pytest.mark.parametrize("torn", [b"", b'{"kind":"ru', b'{"kind":"rule"}', b"\0\0\0", b'"x"\n', b"{not json}\n"])
def test_a_torn_last_record_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "tp0.jsonl"
    record = Journal(path)
    record.record("device", device="tp0")
    record.close()
    with open(path, "ab") as file:
        file.write(torn)
    assert [entry["kind"] for entry in journal.read(path)[1]] == ["device"]


def test_a_journal_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    Journal(tmp_path / "tp0.jsonl").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "tp0.jsonl")


def test_finished_means_gone(tmp_path: Path) -> None:
    record = Journal(tmp_path / "tp0.jsonl")
    record.finish()
    record.finish()
    assert list(journal.left_behind(tmp_path)) == []
    assert list(journal.left_behind(tmp_path / "nowhere")) == []


def edit(record: Journal, ours: str, original: str) -> None:
    record.record(
        "file", path="/etc/resolv.conf", ours=ours, original={"type": "file", "text": original}, nameserver=""
    )


def test_edits_of_one_original_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "tp0.jsonl"
    record = Journal(path)
    record.record("device", device="tp0")
    edit(record, "first", "other")
    for number in range(20):
        edit(record, f"ours {number}", "theirs")
    record.record("table", table=7000)
    _, entries = journal.read(path)
    assert entries == record.entries
    assert [entry.get("ours", entry["kind"]) for entry in entries] == ["device", "first", "ours 18", "ours 19", "table"]
    assert [one.name for one in tmp_path.iterdir()] == ["tp0.jsonl"]
    record.close()


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Journal(tmp_path / "tp0.jsonl")
    record.record("device", device="tp0")
    write, room = os.write, [10, 0]

    def filling(fd: int, data: bytes) -> int:
        if not (count := room.pop(0)):
            raise OSError(28, "No space left on device")
        return write(fd, data[:count])

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(OSError, match="No space"):
        record.record("table", table=7000)
    room[:] = [5, 1000]  # there is room again, and one call writes a part
    record.record("table", table=7001)
    monkeypatch.undo()
    assert journal.read(record.path)[1] == [{"kind": "device", "device": "tp0"}, {"kind": "table", "table": 7001}]
    record.close()


def test_no_journal_of_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        Journal(tmp_path / "tp0.jsonl")
    assert list(tmp_path.iterdir()) == []
