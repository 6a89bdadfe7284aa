"""Bytes that wait, as views of what they came in.

A view costs some 200 bytes and keeps what it is a view of, so small pieces are copied together: a window of 64 KiB that
was filled byte by byte would hold 25 MB otherwise.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

SMALL = 1024
"""Bytes; shorter pieces are joined."""
BLOCK = 16384
"""Bytes at which a joined piece is long enough."""

Pieces: TypeAlias = "deque[memoryview | bytearray]"
"""In order; a bytearray is a joined piece that nobody has seen yet."""


def push(pieces: Pieces, data: memoryview) -> None:
    """Put `data` behind the others."""
    if len(data) >= SMALL:
        pieces.append(data)
        return
    last = pieces[-1] if pieces else None
    if type(last) is bytearray and len(last) < BLOCK:
        last += data
    else:
        pieces.append(bytearray(data))


def first(pieces: Pieces) -> memoryview:
    """The first piece, to be handed on or cut: it does not change any more."""
    head = pieces[0]
    if type(head) is bytearray:
        head = pieces[0] = memoryview(head)
    return head  # type: ignore[return-value]  # a view, or made one
