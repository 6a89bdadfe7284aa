"""Segments that arrived ahead of a gap (RFC 9293, 3.10.7.4)."""

from __future__ import annotations

from bisect import insort


class Reassembly:
    """Pieces behind a gap, bounded in number; the receive window bounds their bytes. Positions are absolute."""

    __slots__ = ("_limit", "_pieces")

    def __init__(self, limit: int) -> None:
        self._pieces: list[tuple[int, int, memoryview]] = []
        self._limit = limit

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, begin: int, data: memoryview) -> bool:
        """Keep a piece; False when it adds nothing or there are too many."""
        if len(self._pieces) >= self._limit:
            return False
        end = begin + len(data)
        if any(first <= begin and end <= last for first, last, _ in self._pieces):
            return False
        # The id of the order is (begin, end): equal pairs never meet, so memoryviews are never compared.
        insort(self._pieces, (begin, end, data))
        return True

    def take(self, position: int) -> memoryview | None:
        """The bytes from `position` on, if a piece covers it; what lies wholly before is dropped."""
        pieces = self._pieces
        while pieces and pieces[0][1] <= position:
            pieces.pop(0)
        if pieces and pieces[0][0] <= position:
            begin, _, data = pieces.pop(0)
            return data[position - begin :] if begin < position else data
        return None

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
