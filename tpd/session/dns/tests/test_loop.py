"""Questions that come back are recognised; others are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tpd.session.dns.loop import LoopGuard, mark

NAME = b"\4echo\4demo\0"


@given(st.integers(0, 2**256 - 1))
def test_a_mark_changes_only_the_case_and_always_something(bits: int) -> None:
    marked = mark(NAME, bits)
    assert marked != NAME
    assert marked.lower() == NAME


def test_a_name_without_letters_stays() -> None:
    assert mark(b"\3123\0", 12345) == b"\3123\0"


@given(st.binary(max_size=40), st.integers(0, 2**64))
def test_any_bytes(name: bytes, bits: int) -> None:
    assert len(mark(name, bits)) == len(name)


def test_only_what_is_in_flight_comes_back() -> None:
    guard = LoopGuard()
    marked = mark(NAME, 0b1010)
    assert not guard.came_back(marked, 1)
    guard.sent(marked, 1)
    guard.sent(marked, 1)
    assert guard.came_back(marked, 1)
    assert not guard.came_back(NAME, 1), "another program may ask the same at the same time"
    assert not guard.came_back(marked, 28)
    guard.finished(marked, 1)
    assert guard.came_back(marked, 1)
    guard.finished(marked, 1)
    assert not guard.came_back(marked, 1)
