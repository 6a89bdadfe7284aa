"""Pure. DNS over one TCP connection (RFC 7766): messages with a length in front, answers in any order."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tunnel.endpoint import Broken, Endpoint, EndpointHandler

_LENGTH = struct.Struct("!H")
MAX_UNDER_WAY = 64
"""Questions of one connection that may be unanswered; what comes beyond waits in the client's window."""

Ask = Callable[[bytes, bool, Callable[[bytes], None]], bool]
"""Answer a message: (message, over TCP, reply). False: it was not a question, and no reply will come."""


class DnsStream(EndpointHandler):
    """Reads questions from `endpoint`, has them answered by `ask`, writes the answers."""

    def __init__(self, endpoint: Endpoint, ask: Ask) -> None:
        self._endpoint = endpoint
        self._ask = ask
        self._received = bytearray()
        self._replies = bytearray()
        self._under_way = 0
        self._eof = False
        self._closed = False
        self._taking = False

    def on_data(self, data: memoryview) -> None:
        self._received += data
        self._take_questions()

    def _take_questions(self) -> None:
        if self._taking:  # a reply came at once, from within the loop below
            return
        self._taking = True
        received = self._received
        while self._under_way < MAX_UNDER_WAY and not self._closed and len(received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            if len(received) < end:
                break
            message = bytes(received[_LENGTH.size : end])
            del received[:end]
            self._under_way += 1
            self._endpoint.consumed(end)
            if not self._ask(message, True, self._reply):
                self._closed = True
                self._endpoint.reset()
        self._taking = False

    def _reply(self, message: bytes) -> None:
        self._under_way -= 1
        if self._closed:
            return
        self._replies += _LENGTH.pack(len(message)) + message
        self._flush()
        self._take_questions()

    def _flush(self) -> None:
        if self._replies:
            taken = self._endpoint.send(memoryview(bytes(self._replies)))
            del self._replies[:taken]
        if self._eof and not self._replies and not self._under_way:
            self._endpoint.send_eof()

    def on_writable(self) -> None:
        self._flush()

    def on_eof(self) -> None:
        """The client asks no more; what it asked is still answered."""
        self._eof = True
        self._flush()

    def on_closed(self, broken: Broken | None) -> None:
        self._closed = True
