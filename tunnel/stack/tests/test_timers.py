"""The timer queue: lazy entries, never late."""

from __future__ import annotations

import random

from tunnel.stack.timers import TimerQueue


class Item:
    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.queued_at: float | None = None


def test_due_in_order_and_only_when_due() -> None:
    queue = TimerQueue[Item]()
    early, late, never = Item(1.0), Item(2.0), Item()
    for item in (late, early, never):
        queue.schedule(item)
    assert queue.next() == 1.0
    assert list(queue.due(0.5)) == []
    assert list(queue.due(1.5)) == [early]
    assert list(queue.due(5.0)) == [late]
    assert queue.next() is None


def test_a_deadline_that_moves_later_costs_nothing_and_fires_once() -> None:
    queue = TimerQueue[Item]()
    item = Item(1.0)
    queue.schedule(item)
    for n in range(1000):
        item.deadline = 1.0 + n
        queue.schedule(item)
    assert len(queue) == 1
    assert list(queue.due(999.0)) == []
    assert list(queue.due(1000.0)) == [item]


def test_a_deadline_that_moves_earlier_fires_earlier() -> None:
    queue = TimerQueue[Item]()
    item = Item(10.0)
    queue.schedule(item)
    item.deadline = 1.0
    queue.schedule(item)
    assert list(queue.due(1.0)) == [item]
    item.deadline = None
    assert list(queue.due(100.0)) == []


def test_never_late_whatever_happens() -> None:
    source = random.Random(1)
    queue = TimerQueue[Item]()
    items = [Item() for _ in range(20)]
    now = 0.0
    for _ in range(5000):
        item = source.choice(items)
        item.deadline = source.choice([None, now + source.uniform(0.1, 50)])
        queue.schedule(item)
        deadlines = [item.deadline for item in items if item.deadline is not None]
        if deadlines:
            at = queue.next()
            assert at is not None
            assert at <= min(deadlines)
        now += source.uniform(0, 1)
        for item in queue.due(now):
            assert item.deadline is not None
            assert item.deadline <= now
            item.deadline = None
        assert not [item for item in items if item.deadline is not None and item.deadline <= now]


def test_the_dead_do_not_fill_the_memory() -> None:
    queue = TimerQueue[Item]()
    for _ in range(100_000):
        item = Item(1000.0)
        queue.schedule(item)
        item.deadline = None
    assert len(queue) < 1000
