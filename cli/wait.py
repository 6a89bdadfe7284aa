"""Waiting for other programs while the user is told what for."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from cli.progress import Progress


def run(command: Sequence[str], progress: Progress, deadline: float) -> subprocess.CompletedProcess[str]:
    """Run a program without input to its end, and keep what it prints. Raises OSError, and subprocess.TimeoutExpired
    after `deadline` seconds, when the program is killed."""
    until = time.monotonic() + deadline
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                out, errors = process.communicate(timeout=min(progress.tick(), max(0.0, until - time.monotonic())))
                return subprocess.CompletedProcess(command, process.returncode, out, errors)
            if time.monotonic() >= until:
                raise subprocess.TimeoutExpired(command, deadline)
    except BaseException:
        with suppress(PermissionError):  # a sudo is root's: it ends by itself, when nobody types a password
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        raise


def lines(stream: IO[bytes], progress: Progress) -> Iterator[bytes]:
    """The lines of an unbuffered stream, as they come."""
    rest = b""
    while True:
        if not select.select([stream], [], [], progress.tick())[0]:
            continue
        data = os.read(stream.fileno(), 65536)
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if not data:
            if rest:
                yield rest
            return
