"""What is said inside the WebSocket of a port-forward: two ways to tell data from errors. Pure.

Both are one byte stream each way with a second channel for errors; any text there is the end.
"""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

_TEXT_LIMIT = 400


class Channel(Protocol):
    """One port of one pod inside one WebSocket."""

    protocol: str
    """The WebSocket's subprotocol."""
    data: list[memoryview]
    """What has arrived from the pod; whoever takes it empties the list."""
    replies: list[bytes]
    """Payload that must be sent now; likewise."""
    failure: str | None
    """Why the forward has ended."""

    def query(self) -> dict[str, str]:
        """Query parameters of the request."""

    def opening(self) -> bytes:
        """Payload of the first message, if any."""

    def prefix(self, size: int) -> bytes:
        """What stands before `size` bytes for the pod in one message."""

    def receive(self, part: memoryview, first: bool) -> None:
        """Payload from the server; `first` at the beginning of a message."""


class V4Channel:
    """Subprotocol `v4.channel.k8s.io`: a channel byte in front of every message, 0 data, 1 errors.

    The first message on each channel is the port number (two bytes, little endian). There is no half-close.
    Source: kubernetes/kubernetes pkg/kubelet/cri/streaming/portforward/websocket.go.
    """

    protocol = "v4.channel.k8s.io"

    def __init__(self, port: int) -> None:
        self._port = port
        self.data: list[memoryview] = []
        self.replies: list[bytes] = []
        self.failure: str | None = None
        self._channel = 0
        self._port_bytes = {0: 2, 1: 2}

    def query(self) -> dict[str, str]:
        return {"ports": str(self._port)}

    def opening(self) -> bytes:
        return b""

    def prefix(self, size: int) -> bytes:
        return b"\0"

    def receive(self, part: memoryview, first: bool) -> None:
        if first:
            self._channel = part[0]
            part = part[1:]
        skip = min(self._port_bytes.get(self._channel, 0), len(part))
        if skip:
            self._port_bytes[self._channel] -= skip
            part = part[skip:]
        if not part:
            return
        if self._channel == 0:
            self.data.append(part)
        elif self._channel == 1:
            self.failure = _text(self.failure, part)


class SpdyChannel:
    """Subprotocol `SPDY/3.1+portforward.k8s.io`: the bytes of a SPDY connection with an error and a data stream.

    It is what kubectl speaks; container runtimes decode it at a quarter of the cost of v4's messages. There is no
    flow control in it: a receiver that stops reading stops the connection, which here has one stream that matters.
    Sources: the SPDY protocol, draft 3.1; moby/spdystream; k8s.io/client-go/tools/portforward.
    """

    protocol = "SPDY/3.1+portforward.k8s.io"

    _ERRORS, _DATA = 1, 3
    _SYN_STREAM, _RST_STREAM, _PING, _GOAWAY = 1, 3, 6, 7
    _CONTROL = 0x8003
    _FIN = 1
    _HEAD = struct.Struct("!II")
    _LARGEST_CONTROL = 64 * 1024

    def __init__(self, port: int) -> None:
        self._port = port
        self.data: list[memoryview] = []
        self.replies: list[bytes] = []
        self.failure: str | None = None
        self._head = b""
        self._left = 0
        self._first_word = self._flags = 0
        self._control = b""

    def query(self) -> dict[str, str]:
        return {}

    def opening(self) -> bytes:
        # One compressor for the connection, as the protocol wants; without the dictionary, which is optional.
        compressor = zlib.compressobj()
        return b"".join(
            self._syn_stream(compressor, stream, kind, flags)
            for stream, kind, flags in ((self._ERRORS, b"error", self._FIN), (self._DATA, b"data", 0))
        )

    def _syn_stream(self, compressor: zlib._Compress, stream: int, kind: bytes, flags: int) -> bytes:
        headers = {b"streamtype": kind, b"port": str(self._port).encode(), b"requestid": b"0"}
        words = [word for pair in headers.items() for word in pair]
        block = struct.pack("!I", len(headers)) + b"".join(struct.pack("!I", len(word)) + word for word in words)
        body = struct.pack("!IIH", stream, 0, 0) + compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack("!HHI", self._CONTROL, self._SYN_STREAM, flags << 24 | len(body)) + body

    def prefix(self, size: int) -> bytes:
        return self._HEAD.pack(self._DATA, size)

    def receive(self, part: memoryview, first: bool) -> None:
        if self._head:
            part = memoryview(self._head + part)
            self._head = b""
        at, end = 0, len(part)
        while at < end:
            if not self._left:
                if end - at < self._HEAD.size:
                    self._head = bytes(part[at:])
                    return
                self._first_word, second = self._HEAD.unpack_from(part, at)
                self._flags, self._left = second >> 24, second & 0xFFFFFF
                at += self._HEAD.size
            stop = min(at + self._left, end)
            self._left -= stop - at
            self._take(part[at:stop])
            at = stop

    def _take(self, part: memoryview) -> None:
        """A part of the current frame, the last one when nothing is left of it."""
        word = self._first_word
        if word >> 31:
            self._control += part
            if len(self._control) > self._LARGEST_CONTROL:
                self.failure = "the port-forward sent a SPDY frame that is too long"
            if not self._left:
                control, self._control = self._control, b""
                self._take_control(word & 0xFFFF, control)
            return
        if word == self._DATA:
            if part:
                self.data.append(part)
        elif part:
            self.failure = _text(self.failure, part)
        if word == self._DATA and self._flags & self._FIN and not self._left:
            self.failure = self.failure or "the pod closed the connection"

    def _take_control(self, kind: int, body: bytes) -> None:
        if kind == self._PING:
            self.replies.append(struct.pack("!HHI", self._CONTROL, self._PING, len(body)) + body)
        elif kind == self._RST_STREAM:
            self.failure = self.failure or "the port-forward was reset"
        elif kind == self._GOAWAY:
            self.failure = self.failure or "the port-forward was closed"


def _text(before: str | None, part: memoryview) -> str:
    return ((before or "") + bytes(part[:_TEXT_LIMIT]).decode(errors="replace")).strip()[:_TEXT_LIMIT]
