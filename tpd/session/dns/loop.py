"""Pure. Recognising a question that we sent into the cluster and that came back to us.

A cluster on the laptop itself often forwards what it does not know to the host's resolver, which asks us. What goes
into the cluster therefore carries a mark: the letters of its name in a random mixture of cases, which resolvers keep
(draft-vixie-dnsext-dns0x20). A question with the mark of one in flight has come back. As a last resort, more than
`TOO_MANY` equal questions at once are taken for a loop, too.
"""

from __future__ import annotations

TOO_MANY = 32

Key = tuple[bytes, int]


class LoopGuard:
    """The questions in flight to the cluster."""

    def __init__(self) -> None:
        self._marks: dict[Key, int] = {}
        self._equal: dict[Key, int] = {}

    def came_back(self, name: bytes, qtype: int) -> bool:
        """Whether this question is one of ours."""
        return (name, qtype) in self._marks or self._equal.get((name.lower(), qtype), 0) >= TOO_MANY

    def sent(self, name: bytes, qtype: int, *, marked: bool) -> None:
        """A question under `name` goes into the cluster; marked: that spelling is ours alone."""
        for table, key in self._entries(name, qtype, marked):
            table[key] = table.get(key, 0) + 1

    def finished(self, name: bytes, qtype: int, *, marked: bool) -> None:
        """It was answered or given up; arguments as for `sent`."""
        for table, key in self._entries(name, qtype, marked):
            if table.get(key, 0) <= 1:
                table.pop(key, None)
            else:
                table[key] -= 1

    def _entries(self, name: bytes, qtype: int, marked: bool) -> list[tuple[dict[Key, int], Key]]:
        equal = (self._equal, (name.lower(), qtype))
        return [equal, (self._marks, (name, qtype))] if marked else [equal]


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
