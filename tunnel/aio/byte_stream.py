"""What carries a lane's messages: the gRPC stream in service, a pair in memory in tests."""

from __future__ import annotations

from typing import Protocol


class StreamError(ConnectionError):
    """The stream broke; dialling again may help."""


class StreamRefused(StreamError):
    """The far side does not let us in, and will not later either."""


class ByteStream(Protocol):
    """An ordered, reliable stream of whole messages. One task reads, another writes.

    `read` returns None when the peer ended the stream in order. `read` and `write` raise StreamError when it broke.
    `close` ends it and everything below it; it is idempotent, raises nothing, and wakes a pending `read` or `write`.
    """

    async def read(self) -> bytes | None:
        """The next message; None at the end."""

    async def write(self, message: bytes) -> None:
        """Send a message; returns when the stream can take the next one."""

    async def close(self) -> None:
        """End the stream."""
