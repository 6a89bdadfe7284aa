"""Telling the user what is going on: a spinner on a terminal, plain lines otherwise, on standard error."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

PATIENCE = 0.4
"""Seconds before anything is shown: what is done by then needs no explanation."""


class Progress:
    """Steps of one command. `quiet`: nothing is ever shown."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._began = time.monotonic()
        self._text = ""
        self._shown = ""
        self._spinner: Any = None

    def step(self, key: str, text: str, *, done: bool = False) -> None:
        """What happens now; what is done needs no line, because the command's result says it."""
        if not done:
            self._text = text
            self.tick()

    def tick(self) -> float:
        """Show what is due; seconds until the next call."""
        if self._quiet or not self._text:
            return 1.0
        left = self._began + PATIENCE - time.monotonic()
        if left > 0:
            return left
        if self._text != self._shown:
            self._shown = self._text
            self._show(self._text)
        return 1.0

    def _show(self, text: str) -> None:
        if not self._stream.isatty():
            print(f"tpctl: {text}", file=self._stream, flush=True)
            return
        if self._spinner is None:
            from rich.console import Console
            from rich.markup import escape

            self._spinner = Console(file=self._stream).status(escape(text))
            self._spinner.start()
        else:
            from rich.markup import escape

            self._spinner.update(escape(text))

    def stop(self) -> None:
        """Take the spinner away, so that output starts on a clean line. May be used again afterwards."""
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
        self._text = ""
