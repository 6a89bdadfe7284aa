"""A port-forward to one port of one pod through the API server: a carrier."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from tpd.session.carriers import frames
from tpd.session.carriers.channel import Channel, SpdyChannel, V4Channel
from tpd.session.carriers.frames import FrameError, FrameReader
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError
from tunnel.kube.upgrade import Upgraded

log = logging.getLogger(__name__)

LARGEST_MESSAGE = 256 * 1024
"""Bytes of one message upwards, and what may wait for the line before the sender is stopped."""
LARGEST_PREFIX = frames.LARGEST_HEADER + 8


class CarrierFailed(Exception):
    """The carrier has ended; the text says why, as the cluster told it."""


class Sink(Protocol):
    """Who gets what a carrier brings. Called from the event loop's callbacks: do not block."""

    def on_data(self, parts: list[memoryview]) -> None:
        """Bytes from the pod, in order."""

    def on_pause(self) -> None:
        """The line is full: send nothing until `on_resume`."""

    def on_resume(self) -> None:
        """The line takes more."""

    def on_closed(self, reason: str) -> None:
        """The last call."""


class PortForward(asyncio.Protocol):
    """An open forward: `start` it with a sink, then `send`."""

    def __init__(self, upgraded: Upgraded, channel: Channel) -> None:
        self._upgraded = upgraded
        self._channel = channel
        self._reader = FrameReader(channel.receive, self._on_control)
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._failure: str | None = None
        self._paused = False

    @classmethod
    async def open(cls, api: Api, namespace: str, pod: str, port: int, *, bulk: bool = False) -> PortForward:
        """Dial. Raises `KubeError` when the API server refuses, `CarrierFailed` when it breaks at once.

        bulk: for much data rather than for quick answers. SPDY costs the container runtime a quarter of the CPU, but
        hands every small message on in three parts, each of which wakes everybody on the way; v4 does it in one.
        Whether the pod listens shows only later: the kubelet dials once the streams are there.
        """
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        first, second = (SpdyChannel, V4Channel) if bulk else (V4Channel, SpdyChannel)
        try:
            return await cls._open(api, path, first(port))
        except ApiError as error:
            if error.not_found or error.status == 401:
                raise
            log.debug("pod %s: %s refused (%s); trying %s", pod, first.protocol, error, second.protocol)
        return await cls._open(api, path, second(port))

    @classmethod
    async def _open(cls, api: Api, path: str, channel: Channel) -> PortForward:
        upgraded = await api.upgrade(path, protocol=channel.protocol, params=channel.query())
        if upgraded.protocol != channel.protocol:
            upgraded.abort()
            raise ApiError(400, "BadRequest", f"the API server does not speak {channel.protocol}")
        carrier = cls(upgraded, channel)
        try:
            upgraded.take(carrier)
        except ConnectionResetError as error:
            raise CarrierFailed(str(error)) from error
        if opening := channel.opening():
            carrier._write(frames.header(len(opening)) + opening)
        return carrier

    def start(self, sink: Sink) -> None:
        """Deliver to `sink` from now on, first what came before."""
        self._sink = sink
        self._deliver()

    def prefix(self, size: int) -> bytes:
        """What must stand before `size` bytes (at most LARGEST_MESSAGE) given to `send`; up to LARGEST_PREFIX long."""
        inner = self._channel.prefix(size)
        return frames.header(len(inner) + size) + inner

    def send(self, message: bytes) -> None:
        """Send a prefix and its bytes."""
        self._write(message)

    def pause(self) -> None:
        """Receive nothing until `resume`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Receive again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self, reason: str = "closed") -> None:
        """Drop the connection; the sink hears `reason`. Idempotent."""
        self._failure = self._failure or reason
        self._upgraded.abort()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The upgrade is done."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclasses
        transport.set_write_buffer_limits(high=LARGEST_MESSAGE)  # type: ignore[attr-defined]  # as above

    def data_received(self, data: bytes) -> None:
        """Bytes from the API server."""
        try:
            self._reader.feed(data)
        except FrameError as error:
            self.abort(f"the port-forward broke the protocol: {error}")
            return
        channel = self._channel
        if channel.replies:
            for reply in channel.replies:
                self._write(frames.header(len(reply)) + reply)
            channel.replies.clear()
        if self._sink is not None:
            self._deliver()

    def eof_received(self) -> None:
        """The API server ended the connection; asyncio closes ours."""

    def pause_writing(self) -> None:
        """Too much waits for the line."""
        self._paused = True
        if self._sink is not None:
            self._sink.on_pause()

    def resume_writing(self) -> None:
        """The line took enough."""
        self._paused = False
        if self._sink is not None:
            self._sink.on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._transport = None
        self._upgraded.lost(exc)
        self._failure = self._failure or self._channel.failure or (str(exc) if exc else "the port-forward ended")
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_closed(self._failure)

    def _deliver(self) -> None:
        sink, channel = self._sink, self._channel
        if sink is None:
            return
        if channel.data:
            parts, channel.data = channel.data, []
            sink.on_data(parts)
        if channel.failure is not None:
            self.abort(channel.failure)
        if self._transport is None and self._sink is not None:  # it ended before there was a sink
            self._sink = None
            sink.on_closed(self._failure or "the port-forward ended")
        elif self._paused:
            sink.on_pause()

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == frames.PING:
            self._write(frames.header(len(payload), frames.PONG) + payload)
        elif opcode == frames.CLOSE:
            words = payload[2:].decode(errors="replace") or "no reason given"
            self._channel.failure = self._channel.failure or f"the port-forward was closed: {words}"

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def discard(opening: asyncio.Task[PortForward]) -> None:
    """Nobody wants it any more: end the opening, or what it has opened."""

    def abort(opened: asyncio.Task[PortForward]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            opened.result().abort()

    opening.cancel()
    opening.add_done_callback(abort)
