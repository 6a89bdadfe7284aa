"""A pair of byte streams in memory, for asyncio code that needs a carrier without gRPC."""

from __future__ import annotations

import asyncio
from collections import deque

from tunnel.aio.byte_stream import StreamError

ROOM = 1 << 20
"""Bytes under way at which `write` waits."""


class MemoryStream:
    """One end; made by `memory_streams`. `cut` breaks both ends; while it is held, nothing arrives here."""

    def __init__(self) -> None:
        self._peer: MemoryStream = self
        self._messages: deque[bytes | None] = deque()
        self._size = 0
        self._changed = asyncio.Condition()
        self._broken = False
        self._held = False
        self._closed = False

    async def read(self) -> bytes | None:
        """The next message; None at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._broken or self._closed or (self._messages and not self._held))
            if self._closed or not self._messages:
                raise StreamError("the stream broke")
            message = self._messages[0]
            if message is not None:
                self._messages.popleft()
                self._size -= len(message)
            self._changed.notify_all()
            return message

    async def write(self, message: bytes) -> None:
        """Send a message; waits while too much is under way."""
        peer = self._peer
        async with peer._changed:
            await peer._changed.wait_for(lambda: self._broken or self._closed or peer._closed or peer._size < ROOM)
            if self._broken or self._closed or peer._closed:
                raise StreamError("the stream broke")
            peer._messages.append(message)
            peer._size += len(message)
            peer._changed.notify_all()

    async def close(self) -> None:
        """End the stream; the peer reads the end after what was sent."""
        if self._closed:
            return
        self._closed = True
        self._peer._messages.append(None)
        await self._notify()

    async def cut(self) -> None:
        """Both ends see the stream break."""
        self._broken = self._peer._broken = True
        await self._notify()

    async def hold(self, held: bool = True) -> None:
        """Whether what was sent to this end waits from now on; nothing is lost."""
        self._held = held
        await self._notify()

    async def _notify(self) -> None:
        for end in (self, self._peer):
            async with end._changed:
                end._changed.notify_all()


def memory_streams() -> tuple[MemoryStream, MemoryStream]:
    """Two connected ends."""
    left, right = MemoryStream(), MemoryStream()
    left._peer, right._peer = right, left
    return left, right
