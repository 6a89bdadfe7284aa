"""Reaching tpd, starting it, and having a dead one's changes undone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys

from cli.errors import CommandError
from cli.paths import Paths, as_root, left_behind
from cli.progress import Progress
from cli.wait import run

START_DEADLINE = 120.0
"""Seconds for tpd to listen, including the time a person needs to type a password for sudo."""
RESTORE_DEADLINE = 30.0


def dial(where: Paths) -> socket.socket | None:
    """A connection to tpd, or None when nobody listens. Raises CommandError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(5)
        sock.connect(str(where.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except PermissionError:
        sock.close()
        raise CommandError(f"you may not use {where.socket}; ask to be added to the group tpd") from None
    except OSError as error:
        sock.close()
        raise CommandError(
            f"tpd does not answer on {where.socket} ({error.strerror or error}); run: tpctl quit -s"
        ) from None
    sock.settimeout(None)
    return sock


def start(where: Paths, progress: Progress) -> None:
    """Start tpd in the background, through sudo when need be, and wait until it listens. Raises CommandError."""
    progress.step("daemon", "starting tpd")
    _run(
        where,
        [],
        progress,
        START_DEADLINE,
        ask=True,
        why=f"tpd is not running and needs root to start; run: {as_root('daemon start')}",
    )


def restore(where: Paths, progress: Progress) -> None:
    """Undo what a dead tpd left behind, if it did. Raises CommandError when there is no way to root."""
    if not left_behind(where):
        return
    sock = dial(where)
    if sock is not None:
        sock.close()
        return
    why = f"an earlier tpd ended without undoing its changes to this laptop's network; run: {as_root('status')}"
    progress.step("restore", "undoing what an earlier tpd left behind")
    _run(where, ["--restore"], progress, RESTORE_DEADLINE, ask=False, why=why)


def _run(where: Paths, more: list[str], progress: Progress, deadline: float, *, ask: bool, why: str) -> None:
    command = [
        sys.executable,
        "-I",
        "-m",
        "tpd.supervisor.main",
        *("--socket", str(where.socket), "--state-dir", str(where.state), "--log-file", str(where.log)),
        *more,
    ]
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None:
            raise CommandError(why)
        if ask and sys.stdin.isatty():
            progress.stop()  # sudo has the terminal for itself
            print("tpd needs root to start; sudo may ask for your password", file=sys.stderr)  # noqa: T201  sudo asks right behind it
            command = [sudo, "--", *command]
        else:
            command = [sudo, "-n", "--", *command]
    try:
        done = run(command, progress, deadline)
    except subprocess.TimeoutExpired:
        raise CommandError(f"tpd did not start within {deadline:g} s; look at {where.log}") from None
    except OSError as error:
        raise CommandError(f"tpd cannot be started: {error.strerror}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        if command[0].endswith("sudo") and any("sudo:" in line for line in lines):
            raise CommandError(why)
        raise CommandError(lines[-1].strip() if lines else f"tpd did not start; look at {where.log}")
