"""SIGINT and SIGTERM as an orderly stop: the first asks, the second ends at once, and the exit status stays honest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(asyncio.Event):
    """Set when the process has been asked to stop; `signal` says by what."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: signal.Signals | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside a running loop: yields an event that the first SIGINT or SIGTERM sets; a second one kills.

    After a clean stop the signal is raised again, so that whoever waits for the process sees why it ended.
    """
    loop = asyncio.get_running_loop()
    stop = Stop()

    def asked(number: signal.Signals) -> None:
        stop.signal = number
        stop.set()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in _SIGNALS:
        loop.add_signal_handler(each, asked, each)
    try:
        yield stop
    finally:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)


def finish(stop: Stop) -> None:
    """Call last in a process: ends it by the signal that stopped it, if one did."""
    if stop.signal is not None:
        signal.signal(stop.signal, signal.SIG_DFL)
        os.kill(os.getpid(), stop.signal)
