"""A TCP proxy that stands for the line under real carriers: it can be cut by resets or by silence, one way or both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tunnel.aio.tasks import Tasks


class LineProxy:
    """Forwards connections to `target` port on 127.0.0.1; `async with` it, dial `port`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._tasks = Tasks("line")
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._there = asyncio.Event()
        self._there.set()
        self._refusing = False
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> LineProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._tasks.stop()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    def cut(self, *, silent: bool) -> None:
        """Break what is open with resets and refuse what comes, or let nothing through without telling anybody."""
        if silent:
            self._open.clear()
            return
        self._refusing = True
        for writer in list(self._writers):
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def mute(self) -> None:
        """Let nothing more through to the target; what it says still comes back."""
        self._there.clear()

    def restore(self) -> None:
        """The line is back; silent connections of before go on only now."""
        self._refusing = False
        self._open.set()
        self._there.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except (OSError, asyncio.CancelledError):
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        number = self.connections
        self._tasks.spawn(self._pump(reader, far_writer, self._there), name=f"{number}.there")
        self._tasks.spawn(self._pump(far_reader, writer, self._open), name=f"{number}.back")

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                await self._open.wait()
                await way.wait()
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()
