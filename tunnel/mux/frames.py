"""Messages and frames as bytes (docs/protocol.md, sections 1 and 2).

Writers append buffers to a list that is joined once; the reader returns tuples whose payloads are views into the
message. Nothing here knows what a frame means.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import TypeAlias

from tunnel.mux.errors import RemoteProtocolError

MAX_MESSAGE = 1 << 20
"""Bytes; a longer message is malformed."""
MAX_HELLO = 4096
MAX_OPEN = 4096
MAX_TEXT = 1024
MAX_DATAGRAM = 65535
HEADER_SIZE = 16
SKIP_IF_UNKNOWN = 1

MESSAGE_HEADER = struct.Struct("!QII")
FRAME_HEADER = struct.Struct("!BBHIQ")
OFFSET = struct.Struct("!Q")
_CREDIT = struct.Struct("!BBHIQQ")

Buffer: TypeAlias = bytes | bytearray | memoryview
Frame: TypeAlias = tuple[int, int, int, memoryview]
"""(type, detail, subject, payload)"""


class Type(enum.IntEnum):
    """Frame types. Below 16: control section; from 16: numbered section."""

    HELLO = 1
    ACK = 2
    PING = 3
    PONG = 4
    WANT = 5
    GO_AWAY = 6
    OPEN = 16
    OPENED = 17
    REFUSED = 18
    DATA = 19
    DATAGRAM = 20
    CREDIT = 21
    EOF = 22
    RESET = 23
    QUERY = 24
    REPLY = 25


FIRST_NUMBERED = 16

_LENGTHS: dict[int, tuple[int, int]] = {
    Type.HELLO: (0, MAX_HELLO),
    Type.ACK: (0, 0),
    Type.PING: (0, 0),
    Type.PONG: (0, 0),
    Type.WANT: (0, 0),
    Type.GO_AWAY: (0, MAX_TEXT),
    Type.OPEN: (0, MAX_OPEN),
    Type.OPENED: (0, 0),
    Type.REFUSED: (0, MAX_TEXT),
    Type.DATA: (1, MAX_MESSAGE),
    Type.DATAGRAM: (0, MAX_DATAGRAM),
    Type.CREDIT: (8, 8),
    Type.EOF: (0, 0),
    Type.RESET: (0, 0),
    Type.QUERY: (0, 65535),
    Type.REPLY: (0, 65535),
}
"""Least and greatest payload length of each known type."""


def header(kind: int, length: int, subject: int = 0, detail: int = 0) -> bytes:
    """A frame's header alone; the payload follows as buffers of its own."""
    return FRAME_HEADER.pack(kind, 0, detail, length, subject)


def frame(kind: int, subject: int = 0, detail: int = 0, payload: Buffer = b"") -> bytes:
    """A whole small frame."""
    return FRAME_HEADER.pack(kind, 0, detail, len(payload), subject) + payload


def credit_frame(flow: int, limit: int) -> bytes:
    """A credit frame: the receiver takes bytes up to the absolute offset `limit`."""
    return _CREDIT.pack(Type.CREDIT, 0, 0, 8, flow, limit)


def text_payload(text: str) -> bytes:
    """UTF-8, cut to what a frame may carry."""
    return text.encode("utf-8", "replace")[:MAX_TEXT]


def message(number: int, control: Iterable[Buffer], batch: Iterable[Buffer] = ()) -> bytes:
    """One message; `number` is 0 exactly when there is no batch."""
    section = b"".join(control)
    return b"".join((MESSAGE_HEADER.pack(number, len(section), 0), section, *batch))


def with_control(kept: bytes, control: Iterable[Buffer]) -> bytes:
    """A kept message again, its batch as it was, with a new control section."""
    number, length, _ = MESSAGE_HEADER.unpack_from(kept)
    return message(number, control, (memoryview(kept)[HEADER_SIZE + length :],))


def split(data: bytes) -> tuple[int, memoryview, memoryview]:
    """Number, control section and batch of a message. Raises RemoteProtocolError."""
    size = len(data)
    if size < HEADER_SIZE or size > MAX_MESSAGE:
        raise RemoteProtocolError(f"message of {size} bytes")
    number, length, _ = MESSAGE_HEADER.unpack_from(data)
    end = HEADER_SIZE + length
    if end > size or (number == 0) != (end == size):
        raise RemoteProtocolError("sections do not fit the message")
    view = memoryview(data)
    return number, view[HEADER_SIZE:end], view[end:]


def parse(section: memoryview, numbered: bool) -> list[Frame]:
    """All known frames of one section, in order; raises RemoteProtocolError before anything was applied."""
    frames: list[Frame] = []
    append, unpack, lengths = frames.append, FRAME_HEADER.unpack_from, _LENGTHS
    at, end = 0, len(section)
    while at < end:
        if end - at < HEADER_SIZE:
            raise RemoteProtocolError("truncated frame header")
        kind, flags, detail, length, subject = unpack(section, at)
        at += HEADER_SIZE
        stop = at + length
        if stop > end:
            raise RemoteProtocolError("frame longer than its section")
        bounds = lengths.get(kind)
        if bounds is None:
            if not flags & SKIP_IF_UNKNOWN:
                raise RemoteProtocolError(f"unknown frame type {kind}")
        elif (kind >= FIRST_NUMBERED) is not numbered:
            raise RemoteProtocolError(f"frame type {kind} in the wrong section")
        elif not bounds[0] <= length <= bounds[1]:
            raise RemoteProtocolError(f"frame type {kind} with {length} bytes")
        else:
            append((kind, detail, subject, section[at:stop]))
        at = stop
    return frames
