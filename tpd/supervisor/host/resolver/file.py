"""The resolv.conf adapter: one file, edited while a connection lasts."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tpd.supervisor.host.journal import Entry, Journal, sync_folder, write_all
from tpd.supervisor.host.resolver import conf
from tpd.supervisor.host.types import HostError, Slot

_NO_RENAME = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""A bind mount (containers, network namespaces) cannot be renamed over; the file behind it can still be written."""


_ATTEMPTS = 5
"""At writing a file that others write at the same time."""


class Overtaken(OSError):
    """Somebody else wrote the file after it was read; what would be written is out of date."""


class ResolvConfFile:
    """Edits resolv.conf for one connection at a time: its programs ask exactly one resolver."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.holder: Slot | None = None
        self._written = ""

    async def apply(self, slot: Slot, search: tuple[str, ...], journal: Journal, edits: Sequence[Entry]) -> None:
        """Make our resolver the only one. `edits`: entries of all edits that are not undone yet, oldest first.

        Raises HostError when another connection has it or writing fails.
        """
        if self.holder is not None and self.holder != slot:
            raise HostError(
                "this laptop's resolv.conf can serve only one connection, and another has it; run: tpctl quit"
            )
        self.holder = slot
        try:
            _again_when_overtaken(lambda: self._edit(slot, search, journal, edits))
        except OSError as error:
            raise HostError(
                f"cannot write {self._path}: {error.strerror or error}; make it writable or use systemd-resolved"
            ) from error

    def _edit(self, slot: Slot, search: tuple[str, ...], journal: Journal, edits: Sequence[Entry]) -> None:
        current = snapshot(self._path)
        original = without_us(self._path, current, edits)
        ours = conf.edit(original["text"], slot.dns_address, search)
        self._written = ours
        if current["type"] == "file" and current["text"] == ours:
            return
        journal.record("file", path=str(self._path), ours=ours, original=original, nameserver=str(slot.dns_address))
        mode, owner = original.get("mode", 0o644), (original.get("uid", 0), original.get("gid", 0))
        put(self._path, ours, mode=mode, owner=owner, expected=current)

    def gone(self, current: Entry) -> bool:
        """Whether a connection has the file and it holds something else than we wrote."""
        return self.holder is not None and (current["type"] != "file" or current["text"] != self._written)


def without_us(path: Path, current: Entry, edits: Sequence[Entry]) -> Entry:
    """The file as it would be without our edits: what comes back in the end if nobody writes it."""
    if current["type"] != "file":
        return current
    for entry in reversed(edits):
        if entry["ours"] == current["text"]:
            return _now(path, entry["original"])
    for entry in reversed(edits):
        original = _now(path, entry["original"])
        text = conf.rebase(current["text"], entry["ours"], original["text"], entry["nameserver"])
        if text != current["text"]:
            return original if text == original["text"] else current | {"text": text}
    return current


def _now(path: Path, original: Entry) -> Entry:
    """An original that is a link says what its target says now: others go on writing that."""
    if original["type"] == "link":
        with contextlib.suppress(OSError):
            return original | {"text": _read(path.parent / original["target"])}
    return original


def snapshot(path: Path) -> Entry:
    """The file as it is: its text, and how to bring it back (a link stays a link). Values survive JSON."""
    try:
        if path.is_symlink():
            try:
                text = _read(path)
            except OSError:
                text = ""  # dangling: there is nothing behind it, and the link is what must come back
            return {"type": "link", "target": os.readlink(path), "text": text}
        status = path.stat()
        return {
            "type": "file",
            "text": _read(path),
            "mode": status.st_mode & 0o7777,
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
    except FileNotFoundError:
        return {"type": "absent", "text": ""}


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def put(path: Path, text: str, *, mode: int, owner: tuple[int, int], expected: Entry) -> None:
    """Replace the file in one step where the file system allows it, else write it in place.

    `expected`: what it was when the text was made. Raises Overtaken when it is not that any more, and OSError.
    """
    data = text.encode("utf-8", "surrogateescape")
    aside = _aside(path)
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data)
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
            _rename(aside, path, expected)
        finally:
            os.close(fd)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        if error.errno not in _NO_RENAME or expected["type"] != "file":
            raise
        _put_in_place(path, data, expected)


def _rename(aside: Path, path: Path, expected: Entry) -> None:
    if snapshot(path) != expected:
        raise Overtaken(f"somebody else is writing {path}")
    os.rename(aside, path)
    sync_folder(path.parent)


def _put_in_place(path: Path, data: bytes, expected: Entry) -> None:
    if snapshot(path) != expected:
        raise Overtaken(f"somebody else is writing {path}")
    before = expected["text"].encode("utf-8", "surrogateescape")
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            os.ftruncate(fd, 0)
            write_all(fd, data)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(fd, before)
            raise
    finally:
        os.close(fd)


def undo(edits: Sequence[Entry]) -> None:
    """Bring back the original of journalled edits of one file (oldest first), unless somebody else wrote it since.

    Repeats harmlessly. Raises OSError when the file cannot be written.
    """
    if edits:
        _again_when_overtaken(lambda: _undo(edits))


def _undo(edits: Sequence[Entry]) -> None:
    path = Path(edits[-1]["path"])
    aside = _aside(path)
    aside.unlink(missing_ok=True)
    current = snapshot(path)
    if current["type"] != "file":
        return  # ours is a file: somebody else removed or replaced it, or the original is back already
    original = without_us(path, current, edits)
    if original is current:
        last = edits[-1]["original"]
        if last["type"] == "file" or last["text"] != current["text"]:
            return
        original = last  # the same text as the original's, but that was a link
    if original["type"] == "link":
        os.symlink(original["target"], aside)
        _rename(aside, path, current)
    elif original["type"] == "absent":
        path.unlink()
        sync_folder(path.parent)
    else:
        put(path, original["text"], mode=original["mode"], owner=(original["uid"], original["gid"]), expected=current)


def _again_when_overtaken(work: Callable[[], None]) -> None:
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except Overtaken:
            continue
    return work()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tpd")
