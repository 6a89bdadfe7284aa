"""Credit of one direction of a flow, as absolute offsets (docs/protocol.md, section 6).

The sender may send up to the offset the receiver last announced. The receiver announces more only for bytes that
left for good, and only when that is at least half a window (or much), so credit frames are few. A flow's first window
is smaller the less memory is left, so that a small process, too, has room for many flows that do little. A window grows
out of a budget that all flows of the process share, when its reader emptied a whole window quickly: only then is the
window what holds the flow back, and only then can more of it not pile up. No window grows beyond a share of what is
free, and one beyond it shrinks (the dynamic thresholds of Choudhury and Hahne), so flows that came late get as much as
the first.
"""

from __future__ import annotations

INITIAL = 65536
"""Bytes of a flow's first window while memory is plentiful; what a frame means that names no first window."""
UNIT = 1024
"""First windows are multiples of this; frames name them in it. Part of the protocol."""
LEAST = 4096
"""Bytes of the smallest first window."""
SHARE = 256
"""So many flows more must find room before a first window gets its size; otherwise it is halved."""
LARGEST = 8 << 20
"""Bytes; above the bulk lane's cap, so that the cap and not the credit is what bounds a fast flow."""
ENOUGH = 512 << 10
"""Bytes that are worth an announcement however large the window is."""
QUICK_ROUNDS = 4.0
"""A window drained within so many round trips may grow."""
QUICK_LEAST = 0.25
"""Seconds; the least that counts as quick: what a credit needs there and back while 64 flows and a busy machine stand
in its way. With less, the flows that came first keep their large windows, and those that came later starve."""
GROWTH = 4
"""A window grows to so many times its size: three steps from the first to the largest but one."""


class CreditExceeded(Exception):
    """The sender sent beyond the announced limit."""


class Budget:
    """What the process promises to hold for its flows, over all links.

    `ceiling` bounds the sum of all windows (default 512 MiB), `pool` the part of it that growth may use (64 MiB).
    Promises, not use: only flows whose reader is slower than their sender ever hold that much. `buffers` bounds what
    stands before and behind the windows: in the queues of flows and in sockets (256 MiB).
    """

    def __init__(self, *, ceiling: int = 512 << 20, pool: int = 64 << 20, buffers: int = 256 << 20) -> None:
        self._buffers = buffers
        self.buffered = 0
        """Bytes in queues and sockets."""
        self._ceiling = ceiling - pool
        self._pool = pool
        self.reserved = 0
        """Bytes of first windows."""
        self.grown = 0
        """Bytes of the pool that are taken."""

    def part(self) -> Budget:
        """A budget out of this one, for one of many who must not starve each other: it may become as large as what it
        leaves free, so one alone has half of everything, two have a third each, and there is something for the next."""
        return _Part(self)

    def admit(self) -> int:
        """Reserve a first window and return its size in bytes; 0 when the ceiling is reached."""
        left = self._left_to_reserve()
        size = INITIAL
        while size > LEAST and size * SHARE > left:
            size //= 2
        if size > left:
            return 0
        self._take(size, 0)
        return size

    def grow(self, wanted: int) -> bool:
        """Reserve `wanted` bytes more out of the pool."""
        if wanted > self._left_to_grow():
            return False
        self._take(0, wanted)
        return True

    def share(self, size: int, first: int) -> int:
        """What a window of `size` bytes that began as `first` may become: with it, its growth is half of what is then
        free. So one flow can have a third of the pool, each of many an equal part, and something is left for the next.
        """
        return size + (first + self._left_to_grow() // 2 - size) * 2 // 3

    def buffer_share(self, most: int) -> int:
        """How many bytes one queue or socket may hold now: `most`, or an eighth of what is left, but never nothing."""
        left = self._left_to_buffer() >> 3
        return most if left >= most else max(left, LEAST)

    def buffer(self, count: int) -> None:
        """So many bytes more (or fewer) are in queues and sockets."""
        self.buffered += count

    def shrink(self, count: int) -> None:
        """Give back what `grow` reserved."""
        self._take(0, -count)

    def release(self, window: ReceiveWindow) -> None:
        """Give a flow's whole window back."""
        self._take(-window.first, window.first - window.size)

    def _left_to_reserve(self) -> int:
        return self._ceiling - self.reserved

    def _left_to_grow(self) -> int:
        return self._pool - self.grown

    def _left_to_buffer(self) -> int:
        return self._buffers - self.buffered

    def _take(self, first: int, growth: int) -> None:
        self.reserved += first
        self.grown += growth


class _Part(Budget):
    """See `Budget.part`. What it holds counts in the whole too."""

    def __init__(self, whole: Budget) -> None:
        super().__init__()
        self._whole = whole

    def buffer(self, count: int) -> None:
        self.buffered += count
        self._whole.buffer(count)

    def _left_to_reserve(self) -> int:
        return self._whole._left_to_reserve() - self.reserved

    def _left_to_grow(self) -> int:
        return self._whole._left_to_grow() - self.grown

    def _left_to_buffer(self) -> int:
        return self._whole._left_to_buffer() - self.buffered

    def _take(self, first: int, growth: int) -> None:
        super()._take(first, growth)
        self._whole._take(first, growth)


class ReceiveWindow:
    """The receiver's side: what arrived, what left for good, what was announced. `first`: what the budget admitted."""

    __slots__ = ("_mark", "_mark_time", "announced", "consumed", "first", "received", "size")

    def __init__(self, first: int = INITIAL) -> None:
        self.received = 0
        self.consumed = 0
        self.first = first
        self.announced = first
        self.size = first
        self._mark = 0
        self._mark_time = float("-inf")

    def receive(self, count: int) -> None:
        """Count arrived bytes; raises CreditExceeded."""
        if self.received + count > self.announced:
            raise CreditExceeded
        self.received += count

    def consume(self, count: int) -> bool:
        """Count bytes that left for good; True when an announcement is due."""
        self.consumed += count
        gain = self.consumed + self.size - self.announced
        return gain * 2 >= self.size or gain >= ENOUGH

    def announce(self, now: float, round_trip: float, budget: Budget) -> int:
        """Decide the size, then raise the limit; returns the limit to announce."""
        if self.consumed - self._mark >= self.size:
            quick = now - self._mark_time <= max(round_trip * QUICK_ROUNDS, QUICK_LEAST)
            self._resize(self.size * GROWTH if quick else self.size, budget)
            self._mark, self._mark_time = self.consumed, now
        self.announced = max(self.announced, self.consumed + self.size)
        return self.announced

    def _resize(self, wanted: int, budget: Budget) -> None:
        size = max(self.first, min(wanted, LARGEST, budget.share(self.size, self.first)))
        if size < self.size:
            budget.shrink(self.size - size)
            self.size = size
        elif size > self.size and budget.grow(size - self.size):
            self.size = size
