"""Where tpd is and where it keeps its things."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.errors import CommandError


@dataclass(frozen=True)
class Paths:
    """The daemon's socket, state folder and log."""

    socket: Path
    state: Path
    log: Path

    @property
    def journal(self) -> Path:
        """The folder with one file for each device that tpd has made."""
        return self.state / "journal"


def absolute(path: Path) -> str:
    """The path from the root of the file system. Raises CommandError where there is no current folder to tell it by."""
    try:
        return os.path.abspath(path)
    except OSError:
        raise CommandError(f"the current folder is gone, so {path} means nothing; change to another one") from None


def paths(environment: Mapping[str, str]) -> Paths:
    """From TPD_SOCKET, TPD_STATE_DIR and TPD_LOG_FILE. A socket elsewhere has its state and log beside it."""
    given = environment.get("TPD_SOCKET")
    socket = Path(absolute(Path(given or "/run/tpd/tpd.sock")))
    state = socket.parent / "state" if given else Path("/var/lib/tpd")
    log = socket.parent / "tpd.log" if given else Path("/var/log/tpd/tpd.log")
    return Paths(
        socket=socket,
        state=Path(absolute(Path(environment.get("TPD_STATE_DIR") or state))),
        log=Path(absolute(Path(environment.get("TPD_LOG_FILE") or log))),
    )


def as_root(command: str) -> str:
    """What to type to run a command of tpctl as root. sudo looks only into folders of its own (sudoers(5),
    secure_path), where a tpctl in a virtual environment is not."""
    own = shutil.which("tpctl")
    known = shutil.which("tpctl", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return f"sudo {own if own and not known else 'tpctl'} {command}"


def left_behind(where: Paths) -> bool:
    """Whether a journal lists changes to the host, by a living tpd or a dead one."""
    try:
        return any(name.endswith(".jsonl") for name in os.listdir(where.journal))
    except OSError:
        return False
