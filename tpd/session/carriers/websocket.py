"""A port-forward of one port of one pod over a WebSocket, subprotocol `v4.channel.k8s.io`.

Every message starts with a channel byte: 0 is data, 1 is errors. The first message on each channel is the port number
(two bytes, little endian). There is no half-close: end, close frame, or any text on the error channel fails it.
Source: kubernetes/kubernetes pkg/kubelet/cri/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import asyncio

import aiohttp

from tunnel.kube.api import Api

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_OPEN_LIMIT = 8.0
"""Seconds until both port numbers have arrived; the kubelet dials the port only afterwards."""


class CarrierFailed(Exception):
    """The carrier has ended; the text says why, as the cluster told it."""


class WebSocketCarrier:
    """An open port-forward. One task may receive and one may send at a time."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    @classmethod
    async def open(cls, api: Api, namespace: str, pod: str, port: int) -> WebSocketCarrier:
        """Dial. Raises `KubeError` when the API server refuses, `CarrierFailed` when the forward breaks at once."""
        socket = await api.websocket(
            f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
            protocols=[PROTOCOL],
            params={"ports": str(port)},
        )
        carrier = cls(socket)
        try:
            async with asyncio.timeout(_OPEN_LIMIT):
                for _ in (_DATA, _ERROR):
                    await carrier._header()
        except TimeoutError as error:
            await carrier.close()
            raise CarrierFailed(f"the port-forward to pod {pod} did not open in time") from error
        except BaseException:
            await carrier.close()
            raise
        return carrier

    async def _header(self) -> None:
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY or len(message.data) != 3:
            raise CarrierFailed(_why(message))

    async def receive(self) -> memoryview:
        """The next bytes from the pod, never empty. Raises `CarrierFailed` at the end."""
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise CarrierFailed(_why(message))
            data: bytes = message.data
            if len(data) > 1:
                if data[0] == _DATA:
                    return memoryview(data)[1:]
                raise CarrierFailed(data[1:200].decode(errors="replace").strip())

    async def send(self, data: bytes) -> None:
        """Send one message; `data` starts with the channel byte 0. Waits while the line is full."""
        try:
            await self._socket.send_bytes(data)
        except (aiohttp.ClientError, ConnectionError) as error:
            raise CarrierFailed(str(error) or "the port-forward was closed") from error

    async def close(self) -> None:
        """Drop the connection. Idempotent."""
        await self._socket.close()


def _why(message: aiohttp.WSMessage) -> str:
    if message.type is aiohttp.WSMsgType.CLOSE:
        return f"the port-forward was closed: {message.extra or message.data}"
    if message.type is aiohttp.WSMsgType.ERROR:
        return f"the port-forward broke: {message.data}"
    return "the port-forward ended"
