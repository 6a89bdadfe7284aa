"""Undoing journalled changes, newest first. One that cannot be undone keeps none of the others."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tpd.supervisor.host import nft, plan
from tpd.supervisor.host.journal import Entry
from tpd.supervisor.host.netlink import netlink
from tpd.supervisor.host.resolver import file, resolved
from tpd.supervisor.host.types import HostError

log = logging.getLogger("tpd.host")


@dataclass(frozen=True)
class Left:
    """What is still to be undone."""

    entries: list[Entry]
    """Oldest first."""
    why: tuple[str, ...]
    """One text for each failure."""


async def undo(entries: Sequence[Entry], *, same_boot: bool = True) -> Left:
    """Undo them, and say which of them could not be undone; those may be tried again at any time.

    Edits of a file are undone together, before all else. After a reboot (not `same_boot`) only they are left to undo.
    """
    steps = [[entry] for entry in entries if same_boot and entry["kind"] != "file"]
    if edits := [entry for entry in entries if entry["kind"] == "file"]:
        steps.append(edits)
    left: list[Entry] = []
    why: list[str] = []
    for step in reversed(steps):
        try:
            await _undo(step)
        except Exception as error:  # whatever it is: the laptop must not keep the rest
            if not isinstance(error, HostError | OSError):
                log.exception("undoing %s", step[0]["kind"])
            left[:0] = step
            why.append(f"{step[0].get('path', step[0]['kind'])}: {error or type(error).__name__}")
    return Left(left, tuple(why))


async def _undo(step: list[Entry]) -> None:
    entry = step[0]
    match entry["kind"]:
        case "device":
            async with netlink() as kernel:
                await kernel.remove_link(entry["device"])
        case "worker":
            _end_worker(entry["pid"], entry["started"])
        case "table":
            async with netlink() as kernel:
                await kernel.empty_table(entry["table"])
        case "rule":
            async with netlink() as kernel:
                await kernel.remove_rule(plan.Rule(**{key: entry[key] for key in entry if key != "kind"}))
        case "nft":
            await nft.remove(entry["table"])
        case "file":
            file.undo(step)
        case "resolved":
            await resolved.undo(entry)
        case other:
            log.error("the journal has an entry of an unknown kind %r", other)


def started(pid: int) -> str:
    """When the process started, in ticks: with the pid it names one process for good (proc_pid_stat(5))."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return ""


def _end_worker(pid: int, began: str) -> None:
    if began and started(pid) == began:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
