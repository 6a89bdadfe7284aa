"""Waiting for what happens elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def eventually(look: Callable[[], _T], *, within: float = 20, every: float = 0.2) -> _T:
    """The first true value that `look` gives; AssertionError with the last one after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within:g} s; the last look gave {found!r}"
        time.sleep(every)
