"""What waits takes little more memory than it is long, however small its pieces, wherever it waits."""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.mux.tests.test_schedule import Owner
from tunnel.pieces import BLOCK, SMALL, Pieces, first, push
from tunnel.splice import Splice
from tunnel.stack.sender import Sender
from tunnel.stack.window import Allowance, Pool

WINDOW = 65536


@given(
    sizes=st.lists(st.integers(1, 3 * SMALL), max_size=30),
    cuts=st.lists(st.integers(0, BLOCK), max_size=30),
)
def test_order_is_kept_and_what_was_handed_on_does_not_change(sizes: list[int], cuts: list[int]) -> None:
    data = bytes(range(256)) * (sum(sizes) // 256 + 1)
    waiting: Pieces = deque()
    out: list[memoryview] = []
    at = 0
    for size, cut in zip(sizes, cuts + [0] * len(sizes), strict=False):
        push(waiting, memoryview(data)[at : at + size])
        at += size
        head = first(waiting)
        if 0 < cut < len(head):
            out.append(head[:cut])
            waiting[0] = head[cut:]
        elif cut:
            out.append(head)
            waiting.popleft()
    while waiting:
        out.append(first(waiting))
        waiting.popleft()
    assert b"".join(out) == data[:at]


def into_splice() -> Callable[[memoryview], object]:
    return Splice().left.on_data


def into_sender() -> Callable[[memoryview], object]:
    return Sender(1, Allowance(Pool(0), WINDOW, WINDOW), 1000).take


def into_flow() -> Callable[[memoryview], object]:
    return Owner().flow(1).send


@pytest.mark.parametrize("make", [into_splice, into_sender, into_flow])
@pytest.mark.parametrize("size", [1, 7, SMALL - 1, SMALL])
def test_a_window_of_small_pieces_takes_little_more_than_the_window(
    make: Callable[[], Callable[[memoryview], object]], size: int
) -> None:
    put = make()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(WINDOW // size):
            put(memoryview(bytes(size)))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert WINDOW <= held < WINDOW * 2
