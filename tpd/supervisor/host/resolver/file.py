"""The resolv.conf adapter: one file, edited while a connection lasts."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from tpd.supervisor.host.journal import Entry, Journal
from tpd.supervisor.host.resolver import conf
from tpd.supervisor.host.types import HostError, Slot

_NO_RENAME = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)
"""A bind mount (containers, network namespaces) cannot be renamed over; the file behind it can still be written."""


class ResolvConfFile:
    """Edits resolv.conf for one connection at a time: its programs ask exactly one resolver."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.holder: Slot | None = None

    async def apply(
        self, slot: Slot, ifindex: int, search: tuple[str, ...], domains: tuple[str, ...], journal: Journal
    ) -> None:
        """Make our resolver the only one. Raises HostError when another connection has it or writing fails."""
        if self.holder is not None and self.holder != slot:
            raise HostError(
                "this laptop's resolv.conf can serve only one connection, and another has it; run: tpctl quit"
            )
        last = next((entry for entry in reversed(journal.entries) if entry["kind"] == "file"), None)
        current = snapshot(self._path)
        if last is not None and current["type"] == "file" and current["text"] == last["ours"]:
            original: Entry = last["original"]
        else:
            original = current
        before = original["text"] if original["type"] != "absent" else ""
        ours = conf.edit(before, slot.dns_address, search)
        self.holder = slot
        if current["type"] == "file" and current["text"] == ours:
            return
        journal.record("file", path=str(self._path), ours=ours, original=original, nameserver=str(slot.dns_address))
        mode = original.get("mode", 0o644)
        try:
            put(self._path, ours, mode=mode, owner=(original.get("uid", 0), original.get("gid", 0)))
        except OSError as error:
            raise HostError(
                f"cannot write {self._path}: {error.strerror}; make it writable or use systemd-resolved"
            ) from error

    async def withdraw(self, slot: Slot, ifindex: int, journal: Journal) -> None:
        for entry in reversed(journal.entries):
            if entry["kind"] == "file":
                undo(entry)
        if self.holder == slot:
            self.holder = None

    def original(self, entries: list[Entry]) -> str | None:
        """The text that our edit replaced, when the file still holds our edit."""
        last = next((entry for entry in reversed(entries) if entry["kind"] == "file"), None)
        if last is None:
            return None
        current = snapshot(self._path)
        if current["type"] != "file" or current["text"] != last["ours"]:
            return None
        text: str = last["original"].get("text", "")
        return text


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


def put(path: Path, text: str, *, mode: int, owner: tuple[int, int]) -> None:
    """Replace the file in one step where the file system allows it, else write it in place. Raises OSError."""
    data = text.encode("utf-8", "surrogateescape")
    aside = _aside(path)
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        if error.errno not in _NO_RENAME:
            raise
        with open(path, "r+b") as file:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def undo(entry: Entry) -> None:
    """Bring back the original of a journalled edit, unless somebody else wrote the file since. Repeats harmlessly."""
    path, original = Path(entry["path"]), entry["original"]
    with contextlib.suppress(OSError):
        os.unlink(_aside(path))
    current = snapshot(path)
    if current["type"] == "absent":
        return  # somebody removed what we wrote
    if current["type"] == "link":
        return  # ours is never a link: somebody else replaced it, or it is back already
    text = conf.undo(current["text"], entry["ours"], original["text"], entry["nameserver"])
    if text is None and not (current["text"] == original["text"] and original["type"] != "file"):
        return
    if text is None or text == original["text"]:
        if original["type"] == "link":
            aside = _aside(path)
            os.symlink(original["target"], aside)
            os.rename(aside, path)
            return
        if original["type"] == "absent":
            path.unlink()
            return
    put(
        path,
        text if text is not None else original["text"],
        mode=original.get("mode", current["mode"]),
        owner=(original.get("uid", current["uid"]), original.get("gid", current["gid"])),
    )


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tpd")
