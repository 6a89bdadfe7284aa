"""A TCP proxy that stands for the line under real carriers: it can be cut by resets or by silence, and delays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from tunnel.aio.tasks import Tasks


class LineProxy:
    """Forwards connections to `target` port on 127.0.0.1; `async with` it, dial `port`."""

    def __init__(self, target: int, *, delay: float = 0.0) -> None:
        self._target = target
        self._delay = delay
        self._tasks = Tasks("line")
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
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

    def restore(self) -> None:
        """The line is back; silent connections of before go on only now."""
        self._refusing = False
        self._open.set()

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
        self._tasks.spawn(self._pump(reader, far_writer), name=f"{number}.there")
        self._tasks.spawn(self._pump(far_reader, writer), name=f"{number}.back")

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 18):
                await self._open.wait()
                if self._delay:
                    loop.call_later(self._delay, self._write, writer, data)
                else:
                    writer.write(data)
                    await writer.drain()
        if self._delay:
            await asyncio.sleep(self._delay)
        self._writers.discard(writer)
        writer.close()

    @staticmethod
    def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)
