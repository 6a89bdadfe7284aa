"""The checksum against the definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnel.stack.checksum import checksum, fold, ones_sum


def definition(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for n in range(0, len(data), 2):
        total += int.from_bytes(data[n : n + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=300))
def test_in_one_piece(data: bytes) -> None:
    assert ones_sum(data) == definition(data)
    assert checksum([data]) == ~definition(data) & 0xFFFF


@given(st.lists(st.binary(max_size=20).filter(lambda data: len(data) % 2 == 0)), st.binary(max_size=21))
def test_in_pieces(parts: list[bytes], last: bytes) -> None:
    assert checksum([*parts, last]) == ~definition(b"".join(parts) + last) & 0xFFFF


@given(st.integers(0, 1 << 40))
def test_folding_keeps_the_value(total: int) -> None:
    folded = fold(total)
    assert 0 <= folded <= 0xFFFF
    assert folded % 0xFFFF == total % 0xFFFF
