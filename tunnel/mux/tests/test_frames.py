"""Bytes in and out; whatever bytes come, the answer is frames or RemoteProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.mux import frames
from tunnel.mux.errors import RemoteProtocolError
from tunnel.mux.frames import Type


def test_layout_is_the_documented_one() -> None:
    message = frames.message(
        7, [frames.frame(Type.ACK, 5, 1)], [frames.header(Type.DATA, 3, 9), b"abc", frames.credit_frame(9, 4096)]
    )
    assert message == bytes.fromhex(
        "0000000000000007 00000010 00000000"
        "02 00 0001 00000000 0000000000000005"
        "13 00 0000 00000003 0000000000000009 616263"
        "15 00 0000 00000008 0000000000000009 0000000000001000"
    )
    number, control, batch = frames.split(message)
    assert number == 7
    assert frames.parse(control, numbered=False) == [(Type.ACK, 1, 5, memoryview(b""))]
    assert frames.parse(batch, numbered=True) == [
        (Type.DATA, 0, 9, memoryview(b"abc")),
        (Type.CREDIT, 0, 9, memoryview(b"\0\0\0\0\0\0\x10\0")),
    ]


def test_a_kept_message_gets_another_control_section() -> None:
    kept = frames.message(3, [frames.frame(Type.PING, 1)], [frames.frame(Type.EOF, 5)])
    assert frames.with_control(kept, []) == frames.message(3, [], [frames.frame(Type.EOF, 5)])


def test_unknown_frames_are_skipped_only_with_the_bit() -> None:
    skippable = frames.FRAME_HEADER.pack(200, frames.SKIP_IF_UNKNOWN, 0, 2, 0) + b"xx"
    known = frames.frame(Type.EOF, 1)
    assert frames.parse(memoryview(skippable + known), numbered=True) == [(Type.EOF, 0, 1, memoryview(b""))]
    with pytest.raises(RemoteProtocolError, match="unknown frame type"):
        frames.parse(memoryview(frames.FRAME_HEADER.pack(200, 0, 0, 0, 0)), numbered=True)


@pytest.mark.parametrize(
    "section",
    [
        b"short",
        frames.header(Type.DATA, 5, 1) + b"four",
        frames.header(Type.DATA, 0, 1),
        frames.frame(Type.ACK, 1),
        frames.frame(Type.CREDIT, 1, payload=b"seven77"),
        frames.frame(Type.OPEN, 1, 1, bytes(frames.MAX_OPEN + 1)),
        frames.frame(Type.REFUSED, 1, 1, bytes(frames.MAX_TEXT + 1)),
        frames.frame(Type.EOF, 1, payload=b"x"),
    ],
)
def test_malformed_sections(section: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.parse(memoryview(section), numbered=True)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        bytes(15),
        bytes(frames.MAX_MESSAGE + 1),
        frames.MESSAGE_HEADER.pack(1, 0, 0),
        frames.MESSAGE_HEADER.pack(0, 0, 0) + b"x",
        frames.MESSAGE_HEADER.pack(0, 5, 0) + b"four",
    ],
)
def test_malformed_messages(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.split(message)


@given(st.binary(max_size=400), st.booleans())
def test_arbitrary_bytes(data: bytes, numbered: bool) -> None:
    try:
        _, control, batch = frames.split(data)
        parsed = frames.parse(batch if numbered else control, numbered)
    except RemoteProtocolError:
        return
    assert all((kind >= frames.FIRST_NUMBERED) is numbered for kind, *_ in parsed)
