"""What becomes of a test run that is told to end, or killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from integration.cluster.commands import wait_for
from integration.cluster.places import REPOSITORY, left_by_killed_runs

_TEST = """
import time, pathlib, pytest
here = pathlib.Path(__file__).parent

@pytest.fixture
def made():
    (here / "made").touch()
    yield
    (here / "made").unlink()

def test_for_long(made):
    time.sleep(30)
"""


def test_a_run_that_is_told_to_end_takes_away_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TEST)
    (tmp_path / "pytest.ini").touch()  # none of the project's
    words = ["-m", "pytest", "-q", "-p", "integration.options", "-p", "no:cacheprovider", str(tmp_path)]
    with subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL) as run:
        wait_for("the test to begin", (tmp_path / "made").exists, timeout=20)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == pytest.ExitCode.INTERRUPTED
    assert not (tmp_path / "made").exists()


def test_what_belongs_to_a_process_that_ended_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in (f"traces-{ended.pid}", f"external-{ended.pid}", f"external-{os.getpid()}", "default", "my-1"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TPCTL_CLUSTER_RUN", str(tmp_path))
    assert sorted(left_by_killed_runs()) == [f"external-{ended.pid}", f"traces-{ended.pid}"]
