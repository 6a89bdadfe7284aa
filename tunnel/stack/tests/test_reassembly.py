"""Pieces behind a gap."""

from __future__ import annotations

import random

from tunnel.stack.reassembly import Reassembly


def drain(store: Reassembly, position: int) -> bytes:
    out = b""
    while (data := store.take(position)) is not None:
        out += data
        position += len(data)
    return out


def test_pieces_in_any_order_and_overlapping() -> None:
    data = random.Random(0).randbytes(1000)
    for seed in range(200):
        source = random.Random(seed)
        store = Reassembly(500)
        covered = set()
        for _ in range(40):
            begin = source.randrange(1, 990)
            end = source.randrange(begin + 1, 1001)
            store.add(begin, memoryview(data)[begin:end])
            covered |= set(range(begin, end))
        first = source.randrange(1, 400)
        last = first
        while last in covered:
            last += 1
        assert drain(store, first) == data[first:last]


def test_it_is_bounded() -> None:
    store = Reassembly(3)
    for n in (10, 20, 30):
        assert store.add(n, memoryview(b"x"))
    assert not store.add(40, memoryview(b"x"))
    assert len(store) == 3


def test_what_adds_nothing_is_not_kept() -> None:
    store = Reassembly(10)
    assert store.add(10, memoryview(b"abcdef"))
    assert not store.add(10, memoryview(b"abcdef"))
    assert not store.add(12, memoryview(b"cd"))
    assert len(store) == 1
    assert store.take(5) is None
    assert store.take(16) is None
    assert len(store) == 0
