"""While another program runs, its user is told what for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import daemon, helm, progress, wait
from cli.paths import Paths
from cli.progress import Progress


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.1)


def slow(path: Path, code: str = "") -> str:
    """A program that takes its time."""
    path.write_text(f"#!{sys.executable} -I\nimport time\ntime.sleep(0.5)\n{code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_that_takes_long(tmp_path: Path) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.step("a", "waiting")
    program = slow(tmp_path / "p", "import sys\nprint('out')\nprint('no', file=sys.stderr)\nsys.exit(3)")
    done = wait.run([program], shown, 20)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "no\n")
    assert stream.getvalue() == "tpctl: waiting\n"


def test_a_program_that_takes_too_long_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        wait.run(["sleep", "30"], Progress(quiet=True), 0.2)
    assert time.monotonic() - began < 10


def test_lines_come_one_by_one_and_between_them_progress() -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.step("a", "waiting")
    command = ["sh", "-c", "printf 'a\\nb'; sleep 0.5; printf 'c\\nd'"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        lines = wait.lines(process.stdout, shown)
        assert list(lines) == [b"a", b"bc", b"d"]
    assert stream.getvalue() == "tpctl: waiting\n"


def test_starting_tpd_and_running_helm_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "executable", slow(tmp_path / "p"))
    daemon.start(Paths(tmp_path / "s", tmp_path, tmp_path / "l"), Progress(stream=stream))
    assert stream.getvalue() == "tpctl: starting tpd\n"
    monkeypatch.setattr(helm, "binary", lambda: str(tmp_path / "p"))
    shown = Progress(stream=stream)
    shown.step("helm", "installing")
    helm.run(["install"], shown)
    assert stream.getvalue().endswith("tpctl: installing\n")


def test_nothing_moves_on_the_terminal_while_sudo_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    slow(tmp_path / "sudo")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    daemon.start(Paths(tmp_path / "s", tmp_path, tmp_path / "l"), Progress(stream=stream))
    assert stream.getvalue() == ""
    assert "sudo may ask for your password" in capsys.readouterr().err
