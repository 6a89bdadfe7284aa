"""Growing pauses between attempts. Pure: randomness is an argument."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Pauses that double from `least` to `most` seconds, each shortened at random by up to a half.

    `random` gives numbers in [0, 1), e.g. `random.random`.
    """

    def __init__(self, least: float, most: float, random: Callable[[], float]) -> None:
        self._least = least
        self._most = most
        self._random = random
        self._next = least

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        pause = self._next
        self._next = min(self._most, pause * 2)
        return pause * (1 - self._random() / 2)

    def reset(self) -> None:
        """An attempt succeeded."""
        self._next = self._least
