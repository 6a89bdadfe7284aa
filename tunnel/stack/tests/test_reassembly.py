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


def test_overlapping_pieces_keep_each_byte_once() -> None:
    packet = random.Random(1).randbytes(60_000)
    store = Reassembly(64)
    for start in range(0, 20_000, 100):
        store.add(1 + start, memoryview(packet)[start : start + 20_000])
    assert sum(end - begin for begin, end, _ in store._pieces) <= 40_000
    assert drain(store, 1) == packet[:39_900]


def test_pieces_between_others_and_over_them() -> None:
    data = bytes(range(100))
    store = Reassembly(4)
    for begin, end in ((10, 20), (30, 40), (50, 60)):
        assert store.add(begin, memoryview(data)[begin:end])
    assert store.add(15, memoryview(data)[15:55])
    assert len(store) == 3
    assert drain(store, 10) == data[10:60]


def test_a_small_piece_does_not_keep_its_packet() -> None:
    packet = bytes(60_000)
    store = Reassembly(64)
    store.add(1, memoryview(packet)[:20])
    store.add(100, memoryview(packet)[100:30_000])
    assert [len(bytes(data.obj)) for _, _, data in store._pieces] == [20, 60_000]
