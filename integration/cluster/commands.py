"""Running other programs: always with a deadline, and with their own words in the error."""

import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from integration.cluster.errors import ClusterError


def say(line: str) -> None:
    """A line of progress on standard error (standard output is for answers)."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    say(f"  {what} ...")
    begun = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - begun:.1f} s")


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Run `argv`, return its standard output; `ClusterError` when it fails or `timeout` seconds pass."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{shlex.join(words)}` took more than {timeout:g} s.") from error
    except OSError as error:
        raise ClusterError(f"`{shlex.join(words)}` cannot be started: {error}.") from error
    if done.returncode:
        words_of_it = (done.stderr or done.stdout).strip()[-2000:]
        raise ClusterError(f"`{shlex.join(words)}` failed with status {done.returncode}: {words_of_it}")
    return done.stdout


def wait_for(what: str, ready: Callable[[], bool], *, timeout: float, every: float = 0.05) -> None:
    """Return when `ready()` holds; `ClusterError` naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"Waited {timeout:g} s for {what} in vain.")
        time.sleep(every)
