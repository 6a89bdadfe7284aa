"""Running the user's own command while something lasts, and undoing that in peace."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from cli.errors import CommandError

LOOK_EVERY = 2.0
"""Seconds between looks at whether the command still has what it runs for."""
_GRACE = 10.0
"""Seconds for a command to end when it is told to."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Lost(CommandError):
    """What the command ran for has ended meanwhile."""


@contextmanager
def _on_signals(handle: Callable[[int], None]) -> Iterator[None]:
    def called(number: int, _frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.signal(number, called) for number in _ENDING}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def undone(say: Callable[[], None]) -> Iterator[None]:
    """Around work that must be undone at its end: the first signal that asks tpctl to end, and is not the command's, is
    answered with `say`; the next one ends it, when tpd knows long since what is to be undone."""
    said = False

    def wait(_number: int) -> None:
        nonlocal said
        if said:
            raise KeyboardInterrupt
        said = True
        say()

    with _on_signals(wait):
        yield


def run(command: Sequence[str], environment: Mapping[str, str], lost: Callable[[], str] = lambda: "") -> int:
    """Run it to its end; its exit status, as a shell would say it (128 + signal). Raises CommandError.

    `lost()` is asked again and again; when it gives a reason, the command is ended, and `Lost` raised. A Ctrl-C goes to
    the command, which shares the terminal; a SIGTERM or SIGHUP to tpctl is passed on. Either way the caller lives on to
    undo what it did.
    """
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int) -> None:
        if child is not None and child.poll() is None and number != signal.SIGINT:
            child.send_signal(number)

    with _on_signals(pass_on):
        try:
            child = subprocess.Popen(list(command), env=dict(environment))
        except FileNotFoundError:
            raise CommandError(f"{command[0]}: command not found") from None
        except OSError as error:
            raise CommandError(f"{command[0]} cannot be run: {os.strerror(error.errno or 0)}") from None
        while True:
            try:
                status = child.wait(LOOK_EVERY)
                break
            except subprocess.TimeoutExpired:
                if reason := lost():
                    _end(child)
                    raise Lost(reason) from None
    return status if status >= 0 else 128 - status


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
