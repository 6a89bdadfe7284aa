"""`/tpctl.tunnel.v1.Tunnel/Connect`: raw byte messages both ways over grpc.aio, without protobuf in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from tunnel.aio.byte_stream import ByteStream, StreamError, StreamRefused

SERVICE = "tpctl.tunnel.v1.Tunnel"
METHOD = "Connect"
CLOSE_TIMEOUT = 1.0
"""Seconds a channel gets to close."""

MESSAGE_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 2 << 20),
    ("grpc.max_send_message_length", 2 << 20),
]
"""Options every channel and server of the tunnel needs."""
SERVER_OPTIONS: list[tuple[str, Any]] = [
    *MESSAGE_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a lottery
    ("grpc.server_handshake_timeout_ms", 10_000),  # two minutes otherwise, for whoever connects and says nothing
    ("grpc.max_concurrent_streams", 32),  # of one connection; a carrier has one, or two
]
"""Options for servers, which anybody in the cluster may dial."""
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    *MESSAGE_OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]
"""Options for a client's channel: one carrier each, never shared, no retries beneath ours."""

_BROKEN = (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What grpc.aio raises for a stream that is over, one way or the other."""
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class ServerStream:
    """The server's side of a carrier."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        """The next message; None when the client ended its side."""
        try:
            message: Any = await self._context.read()
        except _BROKEN as error:
            raise StreamError(str(error)) from error
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        """Send a message."""
        try:
            await self._context.write(message)
        except _BROKEN as error:
            raise StreamError(str(error)) from error

    async def close(self) -> None:
        """Nothing: the stream ends when the RPC's handler returns."""


class ClientStream:
    """The client's side of a carrier; owns its channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")()

    async def read(self) -> bytes | None:
        """The next message; None when the server ended the stream with status OK."""
        try:
            message = await self._call.read()
            if isinstance(message, bytes):
                return message
            code, details = await self._call.code(), await self._call.details()
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details()
        except _BROKEN as error:
            raise StreamError(str(error)) from error
        if code is grpc.StatusCode.OK:
            return None
        raise (StreamRefused if code in _REFUSED else StreamError)(f"{code.name}: {details}")

    async def write(self, message: bytes) -> None:
        """Send a message."""
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            kind = StreamRefused if error.code() in _REFUSED else StreamError
            raise kind(f"{error.code().name}: {error.details()}") from error
        except _BROKEN as error:
            raise StreamError(str(error)) from error

    async def close(self) -> None:
        """End the call and close its channel."""
        self._call.cancel()
        # When that fails, the channel dies with its connection, which the carrier's owner closes too.
        with contextlib.suppress(TimeoutError, grpc.RpcError):
            await asyncio.wait_for(self._channel.close(None), CLOSE_TIMEOUT)


def connect_stream(channel: grpc.aio.Channel) -> ByteStream:
    """Start the tunnel's RPC on a channel of its own (`CHANNEL_OPTIONS`); closing the stream closes the channel."""
    return ClientStream(channel)


def tunnel_rpc_handler(serve: Callable[[ByteStream, Context], Awaitable[None]]) -> grpc.GenericRpcHandler:
    """For `server.add_generic_rpc_handlers((…,))`: `serve(stream, context)` runs each carrier to its end."""

    async def connect(requests: AsyncIterator[bytes], context: Context) -> None:
        await serve(ServerStream(context), context)

    behaviour: Any = connect
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: grpc.stream_stream_rpc_method_handler(behaviour)})
