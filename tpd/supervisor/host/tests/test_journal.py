"""What is written before a change can be read after any crash."""

from __future__ import annotations

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
