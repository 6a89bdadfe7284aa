"""Saying what happens: every command as a person would type it, and what it really printed."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable

from integration.cluster.laptop import Laptop
from integration.cluster.processes import RoomProcess


class DemoError(Exception):
    """A step did not do what it should."""


def title(text: str) -> None:
    """Begin a chapter."""
    _write(f"\n== {text}\n")


def note(text: str) -> None:
    """Explain what comes."""
    _write(f"   {text}\n")


class Terminal:
    """A user's terminal on a laptop."""

    def __init__(self, laptop: Laptop) -> None:
        self._laptop = laptop
        self._begun: list[RoomProcess] = []

    def run(self, command: str, *, expect: str = "", timeout: float = 120, user: str = "dev") -> str:
        """Run a shell command, print it and its output; `DemoError` if it fails or `expect` (a regex) is not there."""
        _write(f"{'#' if user == 'root' else '$'} {command}\n")
        begun = time.monotonic()
        try:
            done = self._laptop.run(["sh", "-c", f"exec 2>&1; {command}"], user=user, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"`{command}` took more than {timeout:g} s") from error
        _write("".join(f"  {line}\n" for line in done.stdout.splitlines()))
        took = time.monotonic() - begun
        if took > 1:
            note(f"({took:.1f} s)")
        if done.returncode:
            raise DemoError(f"`{command}` ended with status {done.returncode}")
        if expect and not re.search(expect, done.stdout):
            raise DemoError(f"`{command}` was expected to print {expect!r}")
        return done.stdout

    def until(self, command: str, *, expect: str, timeout: float = 60) -> str:
        """Repeat a command until its output matches `expect`, then show it as `run` does."""

        def matches() -> bool:
            done = self._laptop.run(["sh", "-c", f"exec 2>&1; {command}"], timeout=timeout)
            return bool(re.search(expect, done.stdout))

        wait(f"`{command}` to print {expect!r}", matches, timeout)
        return self.run(command, expect=expect)

    def begin(self, command: str, log: str) -> None:
        """Start a command in the background; its output goes to `log` on the laptop."""
        _write(f"$ {command} > {log} &\n")
        self._begun.append(self._laptop.popen(["sh", "-c", f"exec {command} > {log} 2>&1"]))

    def end_background(self) -> None:
        """End what `begin` started."""
        for process in self._begun:
            process.terminate()
        for process in self._begun:
            process.communicate(timeout=10)
        self._begun.clear()


def wait(what: str, ready: Callable[[], bool], timeout: float) -> None:
    """Poll until `ready()`; `DemoError` that names `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {timeout:g} s for {what} in vain")
        time.sleep(0.2)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
