"""The list of what was changed on the host, written before each change so that it can be undone after any crash.

One file per connection below the state folder's `journal/`, one JSON object per line: first a header, then the changes
in order. Undoing goes through them backwards; every undo is harmless when the change was never made or is already
undone. When everything is undone the file is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
        self._file = os.open(path, _NEW | os.O_EXCL, 0o600)
        self.entries: list[Entry] = []
        """What is not undone yet, oldest first."""
        self._header: Entry = {"kind": "begin", "boot": boot_id()}
        try:
            self._write(self._header)
            sync_folder(path.parent)
        except OSError:
            self.finish()
            raise

    def record(self, kind: str, **values: object) -> None:
        """Remember a change that is about to be made. When this returns it is on the disk.

        Of several edits of one original the newest two are kept: the file holds what one of them wrote. Raises OSError;
        the change must not be made then.
        """
        entry: Entry = {"kind": kind, **values}
        if kind == "file":
            alike = [one for one in self.entries if one["kind"] == "file" and one["original"] == entry["original"]]
            if len(alike) > 1:
                self._rewrite([*(one for one in self.entries if one not in alike[:-1]), entry])
                return
        elif entry in self.entries:
            return
        self._write(entry)
        self.entries.append(entry)

    def _write(self, entry: Entry) -> None:
        size = os.fstat(self._file).st_size
        try:
            write_all(self._file, _line(entry))
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)  # half a record would swallow the next one
            raise

    def _rewrite(self, entries: list[Entry]) -> None:
        aside = self.path.with_suffix(".new")
        fd = os.open(aside, _NEW | os.O_TRUNC, 0o600)
        try:
            write_all(fd, b"".join(_line(entry) for entry in (self._header, *entries)))
            os.fsync(fd)
            os.rename(aside, self.path)
        except OSError:
            os.close(fd)
            aside.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self.entries = fd, entries
        sync_folder(self.path.parent)

    def finish(self) -> None:
        """Everything is undone."""
        self.close()
        remove(self.path)

    def close(self) -> None:
        """Give up the file and leave it for the next start."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_NEW = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def write_all(fd: int, data: bytes) -> None:
    """Write everything: on a disk that is filling up, one call may write a part. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


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


def slots(folder: Path) -> set[int]:
    """Numbers of the connections that have a journal: what they changed is not undone."""
    return {int(path.stem[2:]) for path in left_behind(folder) if path.stem[:2] == "tp" and path.stem[2:].isdecimal()}


def remove(path: Path) -> None:
    """Forget a journal for good, on the disk too; what it lists has been undone."""
    path.with_suffix(".new").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put what was made, renamed or removed there on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
