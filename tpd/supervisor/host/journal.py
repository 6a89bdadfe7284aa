"""The list of what was changed on the host, written before each change so that it can be undone after any crash.

One file per connection below the state folder's `journal/`, one JSON object per line: first a header, then the changes
in order. Undoing goes through them backwards; every undo is harmless when the change was never made or is already
undone. When everything is undone the file is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
"""A change: `kind` and what its undo needs. All values survive JSON."""


def boot_id() -> str:
    """Of this boot: the kernel's part of an older journal is gone by itself."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Journal:
    """One connection's journal, open for writing."""

    def __init__(self, path: Path) -> None:
        """Begin a new journal. Raises FileExistsError when there is one: it must be undone first."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.entries: list[Entry] = []
        self._write({"kind": "begin", "boot": boot_id()})
        _sync_folder(path.parent)

    def record(self, kind: str, **values: object) -> None:
        """Remember a change that is about to be made. When this returns it is on the disk."""
        entry: Entry = {"kind": kind, **values}
        if entry in self.entries and kind != "file":
            return
        self._write(entry)
        self.entries.append(entry)

    def _write(self, entry: Mapping[str, object]) -> None:
        data = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        os.write(self._file, data)
        os.fsync(self._file)

    def finish(self) -> None:
        """Everything is undone."""
        self.close()
        remove(self.path)

    def close(self) -> None:
        """Give up the file and leave it for the next start."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read(path: Path) -> tuple[str, list[Entry]]:
    """The boot id and the changes of a journal, oldest first. A record that was not written in full is left out."""
    boot, entries = "", []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # only the last record can be torn: a change comes after its record is on the disk
        if not isinstance(entry, dict):
            continue
        if entry.get("kind") == "begin":
            boot = str(entry.get("boot", ""))
        else:
            entries.append(entry)
    return boot, entries


def left_behind(folder: Path) -> Iterator[Path]:
    """The journals of an earlier tpd."""
    if folder.is_dir():
        yield from sorted(folder.glob("*.jsonl"))


def remove(path: Path) -> None:
    """Forget a journal for good, on the disk too; what it lists has been undone."""
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
