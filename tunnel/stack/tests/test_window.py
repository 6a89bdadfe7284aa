"""Receive window and buffer allowances."""

from __future__ import annotations

import random

import pytest

from tunnel.stack.window import Allowance, Pool, ReceiveWindow

KIB = 1024


def test_growth_needs_a_drained_window_and_the_pool() -> None:
    pool = Pool(100 * KIB)
    allowance = Allowance(pool, 64 * KIB, 1024 * KIB)
    allowance.moved(63 * KIB)
    assert allowance.limit == 64 * KIB
    allowance.moved(1 * KIB)
    assert allowance.limit == 128 * KIB
    allowance.moved(128 * KIB)
    assert allowance.limit == 128 * KIB, "the pool has only 36 KiB left"
    assert pool.free == 36 * KIB
    allowance.release()
    assert pool.free == 100 * KIB
    allowance.moved(1 << 30)
    assert pool.free == 100 * KIB, "after its end it takes nothing"


def test_growth_ends_at_the_maximum() -> None:
    pool = Pool(1 << 30)
    allowance = Allowance(pool, 64 * KIB, 100 * KIB)
    for _ in range(10):
        allowance.moved(100 * KIB)
    assert allowance.limit == 100 * KIB


def make(scale: int = 5, base: int = 64 * KIB, maximum: int = 1024 * KIB) -> ReceiveWindow:
    return ReceiveWindow(1000, Allowance(Pool(1 << 30), base, maximum), scale)


def test_a_stalled_reader_closes_the_window() -> None:
    window = make(scale=0, base=60000)
    assert window.field(1000) == 60000
    assert window.field(31000) == 30000
    assert window.field(61000) == 0
    assert not window.update_is_due()


def test_an_update_waits_for_a_quarter_of_the_window() -> None:
    window = make(scale=0, base=60000)
    window.field(1000)
    window.field(61000)
    window.consume(14000)
    assert not window.update_is_due()
    window.consume(1000)
    assert window.update_is_due()
    assert window.field(61000) == 15000


@pytest.mark.parametrize("scale", [0, 5])
def test_the_edge_never_moves_back(scale: int) -> None:
    source = random.Random(scale)
    window = make(scale, maximum=64 * KIB)
    received, unconsumed, told = 1000, 0, 0
    for _ in range(5000):
        if source.random() < 0.5:
            count = min(source.choice([1, 7, 1460, 60000]), window.edge - received)
            received += count
            unconsumed += count
        else:
            count = source.randint(0, unconsumed)
            unconsumed -= count
            window.consume(count)
        before = window.edge
        edge = received + (window.field(received) << scale)
        assert edge > told - (1 << scale), "only by rounding (RFC 7323, 2.4)"
        assert window.edge == max(before, edge)
        told = edge


def test_rounding_up_cannot_be_used_to_fill_the_memory() -> None:
    window = make(5, maximum=64 * KIB)
    received = 1000
    for _ in range(200_000):
        window.field(received)
        if received < window.edge:
            received += 1
    assert window.edge < 1000 + 64 * KIB + 32


def test_an_unscaled_field_is_at_most_65535() -> None:
    window = make(5, base=100 * KIB)
    assert window.field(1000, scaled=False) == 65535
    assert window.edge == 1000 + 65535
    assert window.field(1000) << 5 == 100 * KIB
