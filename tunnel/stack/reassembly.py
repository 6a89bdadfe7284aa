"""Segments that arrived ahead of a gap (RFC 9293, 3.10.7.4)."""

from __future__ import annotations

from bisect import bisect_left


class Reassembly:
    """Pieces behind a gap, none overlapping, bounded in number; the receive window bounds their bytes. Positions are
    absolute."""

    __slots__ = ("_limit", "_pieces")

    def __init__(self, limit: int) -> None:
        self._pieces: list[tuple[int, int, memoryview]] = []
        self._limit = limit

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, begin: int, data: memoryview) -> bool:
        """Keep what a piece adds to the others; False when it adds nothing or there are too many."""
        pieces = self._pieces
        end = begin + len(data)
        if any(first <= begin and end <= last for first, last, _ in pieces):
            return False
        at = bisect_left(pieces, begin, key=lambda piece: piece[0])
        stop = at
        while stop < len(pieces) and pieces[stop][1] <= end:
            stop += 1  # wholly within the new one, which takes its place
        if len(pieces) - (stop - at) >= self._limit:
            return False
        start = max(begin, pieces[at - 1][1]) if at else begin
        end = min(end, pieces[stop][0]) if stop < len(pieces) else end
        if start >= end:
            return False
        data = data[start - begin : end - begin]
        if len(data) * 4 < memoryview(data.obj).nbytes:
            data = memoryview(bytes(data))  # on its own, not to keep a packet alive that is much larger
        pieces[at:stop] = [(start, end, data)]
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
