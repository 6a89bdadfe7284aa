"""Every test, in two runs at the same time: those that need a cluster or root mostly wait, the others mostly compute.

`python -m integration.suite ARGUMENTS-OF-PYTEST`. What the first run prints is shown as it comes, what the second
printed when both have ended. The status is 0 only when neither failed and one of them ran a test.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

WAITING, COMPUTING = "root or cluster", "not root and not cluster"
NO_TESTS = 5
"""pytest's status when it ran none (pytest.ExitCode)."""


def status_of(statuses: Sequence[int]) -> int:
    """The status of all runs together: pytest's own of the first that failed; no tests only if none ran any."""
    ran = [status for status in statuses if status != NO_TESTS]
    return next((status for status in ran if status), 0 if ran else NO_TESTS)


def _end(*runs: subprocess.Popen[bytes]) -> None:
    for run in runs:
        run.terminate()


def main(arguments: Sequence[str]) -> int:
    """Run both; the status for the shell."""
    pytest = [sys.executable, "-m", "pytest", *arguments]
    if "-m" in arguments:  # somebody has chosen already
        return subprocess.call(pytest)
    with tempfile.TemporaryFile() as said:
        # One cache of what failed last is enough for one tree.
        beside = subprocess.Popen(
            [*pytest, "-m", COMPUTING, "-q", "-p", "no:cacheprovider"], stdout=said, stderr=subprocess.STDOUT
        )
        shown = subprocess.Popen([*pytest, "-m", WAITING])
        signal.signal(signal.SIGINT, lambda *_: None)  # a terminal's Ctrl-C reaches all three; the runs tidy up
        signal.signal(signal.SIGTERM, lambda *_: _end(beside, shown))
        statuses = [shown.wait(), beside.wait()]
        said.seek(0)
        sys.stdout.write(said.read().decode(errors="replace"))
    return status_of(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
