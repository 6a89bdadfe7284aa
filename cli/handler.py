"""Running the user's own command while something lasts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType

from cli.errors import CommandError


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run it to its end; its exit status, as a shell would say it (128 + signal). Raises CommandError.

    A Ctrl-C goes to the command, which shares the terminal; a SIGTERM or SIGHUP to tpctl is passed on. Either way the
    caller lives on to undo what it did.
    """
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if child is not None and child.poll() is None and number != signal.SIGINT:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        try:
            child = subprocess.Popen(list(command), env=dict(environment))
        except FileNotFoundError:
            raise CommandError(f"{command[0]}: command not found") from None
        except OSError as error:
            raise CommandError(f"{command[0]} cannot be run: {os.strerror(error.errno or 0)}") from None
        status = child.wait()
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    return status if status >= 0 else 128 - status
