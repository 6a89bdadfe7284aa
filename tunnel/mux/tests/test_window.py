"""Credit: few announcements, growth only for readers that keep up, and never beyond the budget."""

from __future__ import annotations

import pytest

from tunnel.mux.window import ENOUGH, INITIAL, LARGEST, LEAST, Budget, CreditExceeded, ReceiveWindow


def drain(window: ReceiveWindow, count: int, now: float, budget: Budget, round_trip: float = 0.0) -> int:
    """Receive and consume `count` bytes in small pieces; returns how many announcements that took."""
    announcements = 0
    while count:
        piece = min(1000, count, window.announced - window.received)
        window.receive(piece)
        if window.consume(piece):
            window.announce(now, round_trip, budget)
            announcements += 1
        count -= piece
    return announcements


def test_the_limit_is_absolute_and_enforced() -> None:
    window = ReceiveWindow()
    window.receive(INITIAL)
    with pytest.raises(CreditExceeded):
        window.receive(1)
    assert window.consume(INITIAL)
    assert window.announce(0.0, 0.0, Budget()) == 2 * INITIAL
    window.receive(INITIAL)


def test_announcements_come_at_half_a_window() -> None:
    budget = Budget(pool=0)
    window = ReceiveWindow()
    assert drain(window, 10 * INITIAL, 0.0, budget) in (19, 20)


def test_a_quick_reader_gets_a_larger_window_a_slow_one_does_not() -> None:
    budget = Budget()
    quick, slow = ReceiveWindow(), ReceiveWindow()
    for step in range(200):
        drain(quick, 8 * INITIAL, 100 + step * 0.001, budget)
        drain(slow, INITIAL, 100 + step * 1.0, budget)
    assert quick.size == LARGEST
    assert slow.size == INITIAL
    assert budget.grown == LARGEST - INITIAL
    assert drain(quick, 2 * LARGEST, 200, budget) <= 2 * LARGEST // ENOUGH + 1


def test_a_long_round_trip_counts_as_quick() -> None:
    budget = Budget()
    near, far = ReceiveWindow(), ReceiveWindow()
    for step in range(10):
        drain(near, INITIAL, 100 + step * 0.5, budget, round_trip=0.001)
        drain(far, INITIAL, 100 + step * 0.5, budget, round_trip=0.2)
    assert near.size == INITIAL
    assert far.size > INITIAL


def test_the_pool_is_shared_and_given_back() -> None:
    budget = Budget(pool=INITIAL * 4)
    windows = [ReceiveWindow() for _ in range(8)]
    for _ in windows:
        assert budget.admit() == INITIAL
    for step in range(20):
        for window in windows:
            drain(window, 4 * INITIAL, 100 + step * 0.001, budget)
    assert 0 < budget.grown <= INITIAL * 4
    for window in windows:
        budget.release(window)
    assert (budget.reserved, budget.grown) == (0, 0)


def test_one_flow_alone_gets_a_third_of_the_pool() -> None:
    budget = Budget(pool=INITIAL * 30)
    window = ReceiveWindow()
    for step in range(30):
        drain(window, 4 * INITIAL, 100 + step * 0.001, budget)
    assert 9 * INITIAL < window.size <= 11 * INITIAL


def test_windows_that_came_late_get_as_much_as_the_first() -> None:
    budget = Budget()
    windows = [ReceiveWindow() for _ in range(64)]
    for step in range(60):
        for window in windows[:4]:
            drain(window, LARGEST, 100 + step * 0.001, budget)
    assert all(window.size == LARGEST for window in windows[:4])
    for step in range(60):
        for window in windows:
            drain(window, LARGEST, 101 + step * 0.001, budget)
    sizes = [window.size for window in windows]
    assert max(sizes) < 3 * min(sizes)
    assert min(sizes) > 8 * INITIAL
    assert budget.grown == sum(sizes) - 64 * INITIAL


def test_first_windows_get_smaller_and_the_ceiling_refuses_flows() -> None:
    budget = Budget(ceiling=30 << 20, pool=10 << 20)
    sizes = list(iter(budget.admit, 0))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == INITIAL
    assert sizes[-1] == LEAST
    assert len(sizes) > 1300
    assert sum(sizes) == budget.reserved == 20 << 20
    windows = [ReceiveWindow(size) for size in sizes]
    for step in range(5):
        drain(windows[-1], INITIAL, 100 + step * 0.001, budget)
    assert windows[-1].size > INITIAL
    for window in windows:
        budget.release(window)
    assert (budget.reserved, budget.grown) == (0, 0)
    assert budget.admit() == INITIAL


def test_one_of_many_gets_no_more_than_it_leaves_to_the_others() -> None:
    whole = Budget(ceiling=40 << 20, pool=10 << 20, buffers=10 << 20)
    for parts, share in (([whole.part()], 2), ([whole.part(), whole.part()], 3)):
        admitted: list[tuple[Budget, ReceiveWindow]] = []
        for _ in range(2000):
            admitted += [(part, ReceiveWindow(size)) for part in parts if (size := part.admit())]
        for part in parts:
            assert (30 << 20) * 0.95 < part.reserved * share <= 30 << 20
            while part.grow(LEAST):
                pass
            while (size := part.buffer_share(1 << 20)) > LEAST:
                part.buffer(size)
        assert max(part.grown for part in parts) <= 5 << 20
        assert sum(part.grown for part in parts) >= 5 << 20
        late = whole.part()
        assert late.admit() >= LEAST
        assert late.grow(1 << 20)
        assert late.buffer_share(1 << 20) > LEAST
        for part, window in admitted:
            part.release(window)
        for part in parts:
            part.shrink(part.grown)
            part.buffer(-part.buffered)
        late.release(ReceiveWindow(late.reserved))
        late.shrink(1 << 20)
        assert (whole.reserved, whole.grown, whole.buffered) == (0, 0, 0)
