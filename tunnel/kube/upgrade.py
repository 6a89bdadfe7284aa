"""A connection to the API server that has left HTTP for another protocol (RFC 9110, section 7.8; RFC 6455, 4.1)."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import aiohttp


def upgrade_headers(protocol: str) -> dict[str, str]:
    """What asks for a WebSocket that speaks `protocol`. The key only guards against caches, which do not upgrade."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
        "Accept": "*/*",  # streams are no JSON: the server answers 406 to that
    }


class _Early:
    """Takes what the server sent behind its 101, in the place of aiohttp's parser of payloads."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Nothing to end."""


class Upgraded:
    """Bytes both ways; hand it to a protocol with `take`, end it with `abort`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        connection = response.connection
        self._handler: Any = connection.protocol if connection is not None else None
        self.protocol = response.headers.get("Sec-WebSocket-Protocol", "")
        """What the server chose to speak; empty: nothing."""

    def take(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """From now on `protocol` gets the bytes, `connection_made` included. It must call `lost` when it ends."""
        transport = self._handler.transport if self._handler is not None else None
        if transport is None:
            raise ConnectionResetError("the API server closed the connection")
        early = _Early()
        self._handler.set_parser(early, None)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early.data:
            protocol.data_received(early.data)
        taken: asyncio.Transport = transport
        return taken

    def lost(self, error: Exception | None) -> None:
        """The connection has ended; aiohttp must hear it, or it would wait for the end when its session closes."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.connection_lost(error)

    def abort(self) -> None:
        """Drop the connection. Idempotent."""
        transport = self._handler.transport if self._handler is not None else None
        if transport is not None:
            transport.abort()
        self._response.close()
