"""`make test` fails when any of its runs does, and when none ran a test."""

import subprocess
import sys
from pathlib import Path

import pytest

from integration.cluster.places import REPOSITORY
from integration.suite import NO_TESTS, status_of


@pytest.mark.parametrize(
    ("statuses", "status"),
    [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((0, NO_TESTS), 0), ((2, NO_TESTS), 2), ((NO_TESTS, NO_TESTS), NO_TESTS)],
)
def test_the_status_of_all_runs(statuses: tuple[int, ...], status: int) -> None:
    assert status_of(statuses) == status


def test_a_failure_in_either_run_is_shown_and_counts(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text("import pytest\n@pytest.mark.root\ndef test_one(): pass\ndef test_two(): assert False\n")
    argv = [sys.executable, "-m", "integration.suite", "-c", str(REPOSITORY / "pyproject.toml"), str(tests)]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "1 passed, 1 deselected" in done.stdout
    assert "1 failed, 1 deselected" in done.stdout
