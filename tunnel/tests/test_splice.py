"""Two byte streams joined: order, back-pressure, half-close, breakage."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.endpoint import Broken, EndpointHandler
from tunnel.splice import Splice


class Side:
    """An endpoint that takes as much as it is told to have room for, and records everything."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken = bytearray()
        self.returned = 0
        self.eofs = 0
        self.was_reset = False

    def send(self, data: memoryview) -> int:
        count = min(self.room, len(data))
        self.taken += data[:count]
        self.room -= count
        return count

    def send_eof(self) -> None:
        self.eofs += 1

    def reset(self) -> None:
        self.was_reset = True

    def consumed(self, count: int) -> None:
        self.returned += count

    def grow(self, handler: EndpointHandler, room: int) -> None:
        self.room += room
        handler.on_writable()


def joined(room: int) -> tuple[Splice, Side, Side, list[Broken | None]]:
    ends: list[Broken | None] = []
    splice, left, right = Splice(ends.append), Side(room), Side(room)
    splice.join(left, right)
    return splice, left, right, ends


def test_credit_is_returned_only_for_what_the_other_side_took() -> None:
    splice, left, right, _ = joined(room=3)
    splice.left.on_data(memoryview(b"hello"))
    assert (bytes(right.taken), left.returned) == (b"hel", 3)
    right.grow(splice.right, 10)
    assert (bytes(right.taken), left.returned) == (b"hello", 5)


def test_eof_waits_for_the_bytes_before_it() -> None:
    splice, _, right, ends = joined(room=1)
    splice.left.on_data(memoryview(b"ab"))
    splice.left.on_eof()
    assert right.eofs == 0
    right.grow(splice.right, 1)
    assert (bytes(right.taken), right.eofs, ends) == (b"ab", 1, [])


def test_bytes_that_came_before_the_join_go_on() -> None:
    splice, left, right = Splice(), Side(9), Side(9)
    splice.left.on_data(memoryview(b"early"))
    splice.left.on_eof()
    splice.join(left, right)
    assert (bytes(right.taken), left.returned, right.eofs) == (b"early", 5, 1)


def test_a_broken_side_resets_the_other_once() -> None:
    splice, _, right, ends = joined(room=1)
    splice.left.on_closed(Broken.RESET)
    splice.right.on_closed(Broken.RESET)
    assert (right.was_reset, ends) == (True, [Broken.RESET])


def test_the_end_comes_when_both_sides_closed_in_order() -> None:
    splice, left, right, ends = joined(room=1)
    splice.left.on_closed(None)
    assert ends == []
    splice.right.on_closed(None)
    assert (ends, left.was_reset, right.was_reset) == ([None], False, False)


@pytest.mark.parametrize("broken", [None, Broken.RESET])
def test_after_the_end_it_holds_nothing(broken: Broken | None) -> None:
    splice, left, right, _ = joined(room=0)
    ends = [weakref.ref(left), weakref.ref(right)]
    waiting = bytes(5000)
    before = sys.getrefcount(waiting)
    splice.left.on_data(memoryview(waiting))
    assert sys.getrefcount(waiting) > before
    gc.disable()  # what goes must not need a collection
    try:
        splice.left.on_closed(broken)
        splice.right.on_closed(broken)
        del left, right
        assert sys.getrefcount(waiting) == before
        assert [end() for end in ends] == [None, None]
    finally:
        gc.enable()


@given(chunks=st.lists(st.binary(min_size=1, max_size=20)), rooms=st.lists(st.integers(0, 30)))
def test_whatever_the_room_bytes_arrive_in_order_and_none_is_lost(chunks: list[bytes], rooms: list[int]) -> None:
    splice, left, right, _ = joined(room=0)
    for chunk in chunks:
        splice.left.on_data(memoryview(chunk))
    for room in rooms:
        right.grow(splice.right, room)
        assert left.returned == len(right.taken)
    right.grow(splice.right, 10_000)
    assert bytes(right.taken) == b"".join(chunks)
