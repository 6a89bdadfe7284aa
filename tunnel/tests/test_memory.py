"""The flows' budget follows the container's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.memory import LEAST, budget, memory_limit

MIB = 1 << 20


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "134217728\n", 128 * MIB),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "268435456\n", 256 * MIB),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
        ("other", "1", None),
    ],
)
def test_limit(tmp_path: Path, file: str, text: str, limit: int | None) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert memory_limit(tmp_path) == limit


@pytest.mark.parametrize(
    ("limit", "flows", "windows", "growth"),
    [
        (None, 8000, 448 * MIB, 64 * MIB),
        (128 * MIB, 1200, 14 * MIB, 14 * MIB),
        (64 * MIB, 256, LEAST, 0),
        (4096 * MIB, 8000, 448 * MIB, 64 * MIB),
    ],
)
def test_budget(limit: int | None, flows: int, windows: int, growth: int) -> None:
    """At least so many flows; never more memory than that for their first windows, and for growth."""
    one = budget(limit, 72 * MIB)
    admitted = 0
    while one.admit():
        admitted += 1
    assert admitted >= flows
    assert one.reserved == windows
    assert one.grow(growth)
    assert not one.grow(1)
