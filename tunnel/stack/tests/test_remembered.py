"""Facts kept for a while."""

from __future__ import annotations

from tunnel.stack.remembered import Remembered


def test_kept_bounded_and_expired() -> None:
    table = Remembered[int](3.0, 2)
    assert table.next_timeout() is None
    table.keep(b"a", 1, 10.0)
    table.keep(b"b", 2, 11.0)
    assert table.next_timeout() == 13.0
    table.keep(b"c", 3, 12.0)
    assert (table.get(b"a"), table.get(b"b"), table.get(b"c")) == (None, 2, 3)
    table.expire(14.0)
    assert (table.get(b"b"), table.get(b"c")) == (None, 3)
    table.keep(b"c", 4, 14.5)
    table.expire(15.0)
    assert table.get(b"c") == 4
    table.forget(b"c")
    table.forget(b"c")
    assert len(table) == 0
