"""Timers: one tagged value per connection, and one queue for all of them."""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Timer(enum.Enum):
    """What a connection waits for. It waits for one thing at a time."""

    NONE = "nothing"
    DIAL = "the owner's decision"
    HANDSHAKE = "the ACK of our SYN-ACK"
    RETRANSMIT = "the ACK of what is in flight"
    PERSIST = "a window"
    KEEPALIVE = "any sign of life"


class Timed(Protocol):
    """Something with a deadline."""

    deadline: float | None
    """When it wants to be called; None: never."""
    queued_at: float | None
    """The time of its earliest entry in the queue; belongs to the queue."""


Item = TypeVar("Item", bound=Timed)


_SMALL = 256
"""Entries that are not worth tidying."""


class TimerQueue(Generic[Item]):
    """A heap with lazy entries.

    Deadlines move later with every acknowledgement, so an entry is only pushed when a deadline comes earlier than the
    entry already there; an entry that comes up too early is pushed again.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._serial = 0
        self._crowded = _SMALL

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, item: Item) -> None:
        """The deadline of `item` was set."""
        deadline = item.deadline
        if deadline is not None and (item.queued_at is None or deadline < item.queued_at):
            item.queued_at = deadline
            self._serial += 1
            heapq.heappush(self._heap, (deadline, self._serial, item))
            if len(self._heap) > self._crowded:
                self._tidy()

    def _tidy(self) -> None:
        """Drop what was superseded and what needs no call any more, so that the dead do not fill the memory."""
        heap = [entry for entry in self._heap if entry[2].queued_at == entry[0] and entry[2].deadline is not None]
        heapq.heapify(heap)
        self._heap[:] = heap
        self._crowded = max(_SMALL, 3 * len(heap))

    def next(self) -> float | None:
        """When to look again; perhaps too early, never too late."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Item]:
        """Items whose deadline has come; each has to set its deadline anew and be scheduled."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, item = heapq.heappop(heap)
            if item.queued_at != at:
                continue
            item.queued_at = None
            if item.deadline is None:
                continue
            if item.deadline > now:
                self.schedule(item)
            else:
                yield item
