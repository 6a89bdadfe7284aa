"""Logging for things that can happen at packet rate, and loggers that carry their context."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any


class RateLimited:
    """Logs at most `burst` messages per `interval` seconds, then how many it left out. `clock`: monotonic seconds."""

    def __init__(
        self, logger: logging.Logger, clock: Callable[[], float], *, burst: int = 5, interval: float = 10.0
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._burst = burst
        self._interval = interval
        self._since = float("-inf")
        self._said = 0
        self._left_out = 0

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Log, unless too much was logged just now."""
        now = self._clock()
        if now - self._since >= self._interval:
            if self._left_out:
                self._logger.log(level, "left out %d messages like the next one", self._left_out)
            self._since, self._said, self._left_out = now, 0, 0
        if self._said >= self._burst:
            self._left_out += 1
            return
        self._said += 1
        self._logger.log(level, message, *arguments)


class Context(logging.LoggerAdapter[logging.Logger]):
    """A logger whose messages start with a context such as `link=manager`."""

    def __init__(self, logger: logging.Logger, context: str) -> None:
        super().__init__(logger, None)
        self._context = context

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the context in front."""
        return f"[{self._context}] {msg}", kwargs
