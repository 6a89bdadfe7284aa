"""WebSocket frames as a client sees them (RFC 6455, section 5). Pure: bytes in, calls out; payload is never copied.

Payload is handed on as it arrives, frame by frame or in parts of one: a carrier needs bytes, not messages.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
LARGEST_HEADER = 14
_FINAL, _MASKED = 0x80, 0x80
_CONTROL = 0x8
_SHORT = struct.Struct("!BBI")
_MIDDLE = struct.Struct("!BBHI")
_LONG = struct.Struct("!BBQI")


class FrameError(Exception):
    """The server broke the protocol."""


def header(size: int, opcode: int = BINARY) -> bytes:
    """A client's frame header. The mask is zero, so the payload follows as it is: masking protects old proxies from
    scripts in browsers, and here there are neither."""
    if size < 126:
        return _SHORT.pack(_FINAL | opcode, _MASKED | size, 0)
    if size < 1 << 16:
        return _MIDDLE.pack(_FINAL | opcode, _MASKED | 126, size, 0)
    return _LONG.pack(_FINAL | opcode, _MASKED | 127, size, 0)


class FrameReader:
    """Feed it what the server sent.

    on_payload(part, first): the next bytes of data messages; `first` at the beginning of a message.
    on_control(opcode, payload): a whole ping, pong or close.
    """

    def __init__(
        self, on_payload: Callable[[memoryview, bool], None], on_control: Callable[[int, bytes], None]
    ) -> None:
        self._on_payload = on_payload
        self._on_control = on_control
        self._head = b""
        """An incomplete header."""
        self._left = 0
        """Payload bytes of the current frame that have not arrived."""
        self._opcode = 0
        self._first = False
        self._control = b""

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises FrameError."""
        if self._head:
            data = self._head + data
            self._head = b""
        view = memoryview(data)
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                size = self._read_header(data, at, end)
                if not size:
                    self._head = data[at:]
                    return
                at += size
            stop = min(at + self._left, end)
            self._left -= stop - at
            if self._opcode & _CONTROL:
                self._control += data[at:stop]
                if not self._left:
                    control, self._control = self._control, b""
                    self._on_control(self._opcode, control)
            elif stop > at:
                self._on_payload(view[at:stop], self._first)
                self._first = False
            at = stop

    def _read_header(self, data: bytes, at: int, end: int) -> int:
        """The length of the header at `at`, or 0 while it is incomplete."""
        if end - at < 2:
            return 0
        opcode, size = data[at], data[at + 1]
        if opcode & 0x70 or size & _MASKED:
            raise FrameError("reserved bits or a mask in a frame")
        length = 2
        if size == 126:
            length = 4
        elif size == 127:
            length = 10
        if end - at < length:
            return 0
        if length > 2:
            size = int.from_bytes(data[at + 2 : at + length], "big")
        opcode &= 0x0F
        if opcode & _CONTROL and (size > 125 or not data[at] & _FINAL):
            raise FrameError("a control frame that is long or in parts")
        self._opcode = opcode
        self._left = size
        if not opcode & _CONTROL and opcode:
            self._first = True
        return length
