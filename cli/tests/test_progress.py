"""What is shown while a command runs."""

from __future__ import annotations

import io

import pytest

from cli import progress
from cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_said_about_what_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.step("a", "first")
    assert 0 < shown.tick() < 2 * progress.PATIENCE
    shown.step("b", "second")
    assert stream.getvalue() == ""
    now[0] += 1
    shown.tick()
    shown.tick()
    shown.step("c", "third")
    shown.step("c", "third is done", done=True)
    shown.tick()
    shown.stop()
    assert stream.getvalue() == "tpctl: second\ntpctl: third\n"


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1)
    stream = io.StringIO()
    Progress(stream=stream, quiet=True).step("a", "first")
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_spinner_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    shown = Progress(stream=stream)
    shown.step("a", "more")
    shown.step("a", "reading [bold]this[/bold]")
    shown.stop()
    assert "reading [bold]this[/bold]" in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue(), "the cursor is shown again"
