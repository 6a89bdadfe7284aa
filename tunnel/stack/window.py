"""Buffer bounds that grow with use, and the receive window (RFC 9293, 3.8.6).

Bytes received shrink the window; bytes *consumed* by the owner hand it back. Growth comes only after the reader drained
a full window, out of a pool that all connections share, so a stalled reader never holds more than the base.
"""

from __future__ import annotations

from typing import Final

MAX_UNSCALED: Final = 65535


class Pool:
    """Bytes that connections may add to their base allowance."""

    def __init__(self, size: int) -> None:
        self._free = size

    @property
    def free(self) -> int:
        """Bytes nobody has taken."""
        return self._free

    def take(self, count: int) -> bool:
        """Take all of `count`, or nothing."""
        if count > self._free:
            return False
        self._free -= count
        return True

    def give(self, count: int) -> None:
        """Give back what was taken."""
        self._free += count


class Allowance:
    """How many bytes one direction of one connection may hold: `base` always, up to `maximum` from the pool."""

    __slots__ = ("_borrowed", "_maximum", "_moved", "_pool", "limit")

    def __init__(self, pool: Pool, base: int, maximum: int) -> None:
        self._pool = pool
        self._maximum = maximum
        self._borrowed = 0
        self._moved = 0
        self.limit = base
        """Bytes allowed now."""

    def moved(self, count: int) -> None:
        """`count` bytes went all the way through; after a full limit of them the limit doubles, if the pool allows."""
        self._moved += count
        if self._moved >= self.limit and self.limit < self._maximum:
            self._moved = 0
            more = min(self.limit, self._maximum - self.limit)
            if self._pool.take(more):
                self._borrowed += more
                self.limit += more

    def release(self) -> None:
        """Give the borrowed bytes back; the connection is over."""
        self._pool.give(self._borrowed)
        self.limit -= self._borrowed
        self._borrowed = 0
        self._maximum = 0


class ReceiveWindow:
    """Which sequence numbers the peer may send. Sequence numbers here are absolute: they never wrap."""

    __slots__ = ("_allowance", "_consumed", "_start", "edge", "scale")

    def __init__(self, start: int, allowance: Allowance, scale: int) -> None:
        """`start`: the first sequence number of data. `scale`: shift of the window field (RFC 7323)."""
        self._allowance = allowance
        self._start = start
        self._consumed = 0
        self.scale = scale
        self.edge = start
        """First sequence number that the peer was never told to send. Never moves back; all before it is taken."""

    def consume(self, count: int) -> None:
        """The owner is done with `count` bytes."""
        self._consumed += count
        self._allowance.moved(count)

    @property
    def outstanding(self) -> int:
        """Sequence number that received data reaches when everything was consumed."""
        return self._start + self._consumed

    def _target(self) -> int:
        return self._start + self._consumed + self._allowance.limit

    def update_is_due(self) -> bool:
        """The edge can move far enough to be worth a packet (silly window avoidance, RFC 9293, 3.8.6.2.2)."""
        return self._target() - self.edge >= self._allowance.limit >> 2

    def field(self, next_expected: int, *, scaled: bool = True) -> int:
        """The window field for a segment with this acknowledgement number; moves the edge.

        Fresh room is rounded up to the scale's unit. Without any, what is left of an earlier promise is rounded down
        (RFC 7323, 2.4: the peer keeps to less, we take all that was promised): rounding up again and again would let
        the edge creep on, without end for bytes that come one by one.
        """
        shift = self.scale if scaled else 0
        target = self._target()
        if target > self.edge:
            value = (target - next_expected + (1 << shift) - 1) >> shift
        else:
            value = max(0, (self.edge - next_expected) >> shift)  # a FIN may lie just beyond the edge
        if value > MAX_UNSCALED:
            value = MAX_UNSCALED
        edge = next_expected + (value << shift)
        if edge > self.edge:
            self.edge = edge
        return value
