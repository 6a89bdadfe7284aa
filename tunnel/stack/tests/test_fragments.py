"""Reassembly's bounds."""

from __future__ import annotations

import pytest

from tunnel.stack import ip
from tunnel.stack.fragments import Fragments, split
from tunnel.stack.ip import IpPacket

ADDRESSES = bytes([10, 0, 0, 1, 10, 0, 0, 2])


def parts_of(payload: bytes, identification: int = 1) -> list[IpPacket]:
    views = [ip.parse(b"".join(part)) for part in split(ADDRESSES, ip.UDP, payload, 1500, identification)]
    return [view for view in views if view is not None]


def test_bytes_are_bounded_and_the_oldest_goes() -> None:
    fragments = Fragments(10_000, 128, 5.0)
    for identification in range(100):
        fragments.add(parts_of(bytes(5000), identification)[0], 0.0)
        assert fragments.held <= 10_000
    last = parts_of(bytes(5000), 99)
    assert [fragments.add(part, 0.0) is not None for part in last[1:]] == [False, False, True]


def test_time_is_bounded() -> None:
    fragments = Fragments(1 << 20, 128, 5.0)
    first, *rest = parts_of(bytes(5000))
    fragments.add(first, 10.0)
    assert fragments.next_timeout() == 15.0
    fragments.expire(14.9)
    assert fragments.held > 0
    fragments.expire(15.0)
    assert fragments.held == 0
    assert fragments.next_timeout() is None
    assert all(fragments.add(part, 15.0) is None for part in rest)


def test_pieces_are_bounded() -> None:
    fragments = Fragments(1 << 20, 3, 5.0)
    assert all(fragments.add(part, 0.0) is None for part in parts_of(bytes(8000)))


def test_overlaps_discard_the_packet() -> None:
    fragments = Fragments(1 << 20, 128, 5.0)
    first, second, *rest = parts_of(bytes(5000))
    fragments.add(first, 0.0)
    second.fragment -= 8
    fragments.add(second, 0.0)
    assert fragments.held == 0
    assert all(fragments.add(part, 0.0) is None for part in rest)


def piece(offset: int, size: int, *, more: bool) -> IpPacket:
    view = parts_of(bytes(size))[0]
    view.fragment, view.more = offset, more
    return view


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(80, 80, more=False), piece(240, 80, more=False), piece(160, 80, more=True), piece(0, 80, more=True)],
        [piece(160, 80, more=False), piece(80, 80, more=False), piece(0, 80, more=True)],
        [piece(0, 80, more=True), piece(320, 80, more=True), piece(160, 80, more=False)],
    ],
    ids=["later", "earlier", "a hole, and as much beyond the end"],
)
def test_parts_that_disagree_about_the_end_discard_the_packet(pieces: list[IpPacket]) -> None:
    fragments = Fragments(1 << 20, 128, 5.0)
    assert [each for part in pieces if (each := fragments.add(part, 0.0)) is not None] == []


def test_a_hole_is_no_packet() -> None:
    fragments = Fragments(1 << 20, 128, 5.0)
    for part in (piece(0, 80, more=True), piece(160, 80, more=True), piece(320, 16, more=False)):
        assert fragments.add(part, 0.0) is None
    assert fragments.add(piece(80, 80, more=True), 0.0) is None
    whole = fragments.add(piece(240, 80, more=True), 0.0)
    assert whole is not None
    assert whole.end - whole.start == 336


def test_nothing_beyond_the_largest_packet() -> None:
    fragments = Fragments(1 << 20, 128, 5.0)
    last = parts_of(bytes(5000))[-1]
    last.fragment = 65528
    assert fragments.add(last, 0.0) is None
    assert fragments.held == 0
