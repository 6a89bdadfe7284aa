"""Retransmission timeout from measured round trips (RFC 6298)."""

from __future__ import annotations


class RttEstimator:
    """Smoothed round-trip time, its variation, and the timeout with its backoff. All in seconds."""

    __slots__ = ("_max", "_min", "_rto", "_smoothed", "_variation", "rto")

    def __init__(self, initial: float, minimum: float, maximum: float) -> None:
        self._smoothed: float | None = None
        self._variation = 0.0
        self._min, self._max = minimum, maximum
        self._rto = initial
        self.rto = initial
        """The timeout to use now."""

    def sample(self, measured: float) -> None:
        """A segment that was sent once was acknowledged after `measured` seconds (Karn: never a repeated one)."""
        if self._smoothed is None:
            self._smoothed, self._variation = measured, measured / 2
        else:
            self._variation += (abs(self._smoothed - measured) - self._variation) / 4
            self._smoothed += (measured - self._smoothed) / 8
        self._rto = self.rto = min(max(self._smoothed + 4 * self._variation, self._min), self._max)

    def back_off(self) -> None:
        """The timer ran out: wait twice as long for the next (5.5)."""
        self.rto = min(self.rto * 2, self._max)

    def progress(self) -> None:
        """Something new was acknowledged: forget the backoff."""
        self.rto = self._rto
