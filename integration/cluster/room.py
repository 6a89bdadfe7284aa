"""A room: Linux namespaces held by one process that is their process 1.

Killing the holder ends every process in the room; with the last of them go its links, mounts and nft tables.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.cluster.commands import run, wait_for
from integration.cluster.errors import ClusterError

# Process 1 adopts orphans; with SIGCHLD ignored the kernel reaps them.
_HOLD = "exec env --ignore-signal=CHLD sleep infinity"
_DETACHED = ("sh", "-c", 'setsid "$@" >/dev/null 2>&1 </dev/null & echo $!', "sh")
_UNSHARE = (
    *("unshare", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
    *("--net", "--mount", "--pid", "--uts", "--ipc"),
)
_ENTER = ("--net", "--mount", "--pid", "--uts", "--ipc")


@dataclass(frozen=True)
class Room:
    """The room whose holder is process `pid` (as the machine counts), started at `started` (clock ticks)."""

    pid: int
    started: int

    @classmethod
    def create(cls, hostname: str, mark: Path) -> "Room":
        """Make a room with network, mount, process, host name and IPC namespaces of its own.

        `mark` is the directory of what it belongs to: `end_rooms` finds it by that.
        """
        launcher = subprocess.run(
            [*_DETACHED, *_UNSHARE, "sh", "-c", f"hostname {shlex.quote(hostname)}; {_HOLD}", str(mark)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=10,
        )
        unshare = int(launcher.stdout)
        holders: list[int] = []

        def holding() -> bool:
            holders[:] = [pid for pid in _children(unshare) if _command(pid)[:1] == ["sleep"]]
            return bool(holders)

        wait_for("a new room (are you root?)", holding, timeout=10, every=0.005)
        started = _start_time(holders[0])
        if started is None:
            raise ClusterError("The new room died at once.")
        return cls(holders[0], started)

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def argv(self, argv: Sequence[str | Path], *, namespaces: Sequence[str] = _ENTER) -> list[str]:
        """The command line that runs `argv` inside."""
        return ["nsenter", "-t", str(self.pid), *namespaces, "--", *map(str, argv)]

    def run(self, argv: Sequence[str | Path], *, timeout: float = 60, stdin: str | None = None) -> str:
        if not self.alive:
            raise ClusterError("The room is gone.")
        return run(self.argv(argv), timeout=timeout, stdin=stdin)

    def script(self, text: str, *, timeout: float = 60) -> str:
        """Run a shell script inside; the first command that fails ends it."""
        return self.run(["sh", "-euc", text], timeout=timeout)

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        namespaces: Sequence[str] = _ENTER,
    ) -> None:
        """Start a program inside that outlives us; what it says is appended to `log`, a path seen inside.

        With fewer `namespaces` it enters only those, and keeps ours for the rest.
        """
        # What a shell starts in the background ignores SIGINT and SIGQUIT unless told otherwise.
        words = [
            "env",
            "--default-signal=INT,QUIT",
            *(f"{key}={value}" for key, value in (env or {}).items()),
            *map(str, argv),
        ]
        shell = f"setsid {shlex.join(words)} >>{shlex.quote(str(log))} 2>&1 </dev/null &"
        run(self.argv(["sh", "-c", shell], namespaces=namespaces))

    def processes(self) -> dict[int, list[str]]:
        """Command lines of everything that runs inside, by the machine's process ids."""
        return {pid: _command(pid) for pid in _members(self._namespace("pid"))} if self.alive else {}

    def kill(self) -> None:
        """End the room and everything in it; returns when all its processes are gone."""
        if not self.alive:
            return
        namespace = self._namespace("pid")
        os.kill(self.pid, signal.SIGKILL)
        wait_for("the room's processes to end", lambda: not _members(namespace), timeout=20, every=0.01)

    def _namespace(self, kind: str) -> str:
        return os.readlink(f"/proc/{self.pid}/ns/{kind}")


def end_rooms(mark: Path) -> None:
    """End every room with this mark, also one whose maker died before it could note the holder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            argv = _command(int(entry.name))
            if argv[:1] == ["unshare"] and argv[-1] == str(mark):
                for holder in _children(int(entry.name)):
                    started = _start_time(holder)
                    if started is not None:
                        Room(holder, started).kill()


def _members(pid_namespace: str) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "ns/pid") == pid_namespace:
                    members.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return members


def _children(pid: int) -> list[int]:
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[1]) == pid:
                children.append(int(entry.name))
    return children


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started: with it a pid is not mistaken for its successor."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
