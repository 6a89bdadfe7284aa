"""An API server's port-forward in small: joins a WebSocket to a local TCP port, in either way of speaking."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

from tpd.session.carriers.channel import SpdyChannel, V4Channel
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials

_HEAD = struct.Struct("!II")


class Server:
    """Forwards every port to `target`. `error`: a text for the error channel instead of a connection."""

    def __init__(self, target: int, protocol: str) -> None:
        self.target = target
        self.protocol = protocol
        self.error = b""
        self.messages: list[int] = []
        """Sizes of the messages that came up."""
        self._sockets: set[web.WebSocketResponse] = set()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        if self.protocol not in request.headers["Sec-WebSocket-Protocol"]:
            raise web.HTTPForbidden(text="this server does not speak that")
        socket = web.WebSocketResponse(protocols=[self.protocol], max_msg_size=0)
        await socket.prepare(request)
        if self.protocol == V4Channel.protocol:
            port = struct.pack("<H", int(request.query["ports"]))
            await socket.send_bytes(b"\0" + port)
            await socket.send_bytes(b"\1" + port)
        if self.error:
            await socket.send_bytes(self._error_frame())
            await asyncio.sleep(5)
            return socket
        self._sockets.add(socket)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        down = asyncio.get_running_loop().create_task(self._down(reader, socket), name="down")
        try:
            waiting = b""
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self.messages.append(len(message.data))
                    if self.protocol == V4Channel.protocol:
                        writer.write(message.data[1:])
                    else:
                        waiting = self._take_spdy(waiting + message.data, writer)
                    await writer.drain()
        finally:
            down.cancel()
            writer.close()
        return socket

    def _take_spdy(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Write the data frames of stream 3; what is incomplete is returned."""
        while len(data) >= _HEAD.size:
            stream, size = _HEAD.unpack_from(data)
            end = _HEAD.size + (size & 0xFFFFFF)
            if len(data) < end:
                break
            if stream == 3:
                writer.write(data[_HEAD.size : end])
            data = data[end:]
        return data

    def _error_frame(self) -> bytes:
        if self.protocol == V4Channel.protocol:
            return b"\1" + self.error
        return _HEAD.pack(1, 1 << 24 | len(self.error)) + self.error

    async def _down(self, reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
        while data := await reader.read(32 * 1024):
            prefix = b"\0" if self.protocol == V4Channel.protocol else _HEAD.pack(3, len(data))
            await socket.send_bytes(prefix + data)
        await socket.close()

    async def drop(self) -> None:
        """End every forward, as a lost line does."""
        for socket in list(self._sockets):
            await socket.close()


@asynccontextmanager
async def api_with_portforward(target: int, protocol: str = SpdyChannel.protocol) -> AsyncIterator[tuple[Api, Server]]:
    """An `Api` whose pods all lead to the local port `target`."""
    server = Server(target, protocol)
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api = Api(Credentials(context="test", namespace="default", server=f"http://127.0.0.1:{port}"))
    try:
        yield api, server
    finally:
        await api.close()
        await runner.cleanup()
