"""CPU time and memory of other processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(stat: str) -> float:
    """User and system time of a process, its threads included, from its `stat` (proc_pid_stat(5))."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_mb(rollup: str) -> float:
    """Proportional set size in MB (10^6) from `smaps_rollup`: shared pages count by share."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def parent(stat: str) -> int:
    """The parent's pid, from `stat`."""
    return int(stat.rpartition(")")[2].split()[1])


def read(pid: int, name: str) -> str:
    """A file of /proc/PID, empty when the process is gone."""
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pids() -> Iterator[int]:
    """Every process there is."""
    return (int(entry) for entry in os.listdir(PROC) if entry.isdigit())


def command(pid: int) -> list[str]:
    """The command line."""
    return read(pid, "cmdline").rstrip("\0").split("\0")


def descendants(root: int) -> set[int]:
    """`root` and all processes below it."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        if stat := read(pid, "stat"):
            children.setdefault(parent(stat), []).append(pid)
    found, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def find(among: set[int], matches: Callable[[list[str]], bool]) -> list[int]:
    """Those of `among` whose command line matches."""
    return sorted(pid for pid in among if matches(command(pid)))


def network(pid: int) -> int | None:
    """The inode of the network namespace a process is in."""
    try:
        return (PROC / str(pid) / "ns/net").stat().st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


class Sample:
    """CPU seconds used by named processes since the sample was taken."""

    def __init__(self, named: dict[str, list[int]]) -> None:
        self._named = named
        self._before = self._now()

    def used(self) -> dict[str, float]:
        """CPU seconds by name since then."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}

    def _now(self) -> dict[str, float]:
        return {
            name: sum(cpu_seconds(stat) for pid in found if (stat := read(pid, "stat")))
            for name, found in self._named.items()
        }


def memory_mb(named: dict[str, list[int]]) -> dict[str, float]:
    """PSS by name."""
    return {name: sum(pss_mb(read(pid, "smaps_rollup")) for pid in found) for name, found in named.items()}
