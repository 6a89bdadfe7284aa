"""Pure. Recognising a question that we sent into the cluster and that came back to us.

A cluster on the laptop itself often forwards what it does not know to the host's resolver, which asks us. What goes
into the cluster therefore carries a mark: the letters of its name in a random mixture of cases, which resolvers keep
(draft-vixie-dnsext-dns0x20). A question with the mark of one in flight has come back. One that lost its mark on the way
equals the one in flight and shares its answer (`shared.py`), so that it goes no further round either.
"""

from __future__ import annotations

Key = tuple[bytes, int]


class LoopGuard:
    """The marked questions in flight to the cluster."""

    def __init__(self) -> None:
        self._marks: dict[Key, int] = {}

    def came_back(self, name: bytes, qtype: int) -> bool:
        """Whether this question is one of ours."""
        return (name, qtype) in self._marks

    def sent(self, name: bytes, qtype: int) -> None:
        """A question goes into the cluster under `name`, a spelling that is ours alone."""
        self._marks[name, qtype] = self._marks.get((name, qtype), 0) + 1

    def finished(self, name: bytes, qtype: int) -> None:
        """It was answered or given up; arguments as for `sent`."""
        left = self._marks.pop((name, qtype), 0) - 1
        if left > 0:
            self._marks[name, qtype] = left


def mark(name: bytes, bits: int) -> bytes:
    """`name` (wire format) with its letters' case chosen by `bits` (random), never as it was if it has letters."""
    out = bytearray(name)
    letters = [index for index in _text(name) if chr(name[index]).isalpha() and name[index] < 128]
    if not letters:
        return name
    for position, index in enumerate(letters):
        if bits >> position & 1:
            out[index] ^= 0x20
    if out == name:
        out[letters[bits % len(letters)]] ^= 0x20
    return bytes(out)


def _text(name: bytes) -> list[int]:
    """Indexes that hold text, not lengths (a length of 65 to 90 cannot occur, but 63 and less never are letters)."""
    indexes: list[int] = []
    at = 0
    while at < len(name) and name[at]:
        indexes.extend(range(at + 1, min(at + 1 + name[at], len(name))))
        at += 1 + name[at]
    return indexes
