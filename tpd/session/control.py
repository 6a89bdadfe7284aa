"""The control socket: requests from tpd in, events and host configurations out."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from tunnel import control
from tunnel.proto import daemon_pb2

HOST_LIMIT = 20.0
"""Seconds for tpd to apply a host configuration."""


class HostRefused(Exception):
    """tpd could not apply what we asked for; the text says why."""


class Control:
    """Writes to tpd. Reading is the main loop's."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[daemon_pb2.HostReply]] = {}

    def event(self, request: int, event: daemon_pb2.Event) -> None:
        """Send an event of a forwarded request."""
        self._send(daemon_pb2.FromWorker(event=daemon_pb2.ForwardedEvent(id=request, event=event)))

    async def configure_host(self, config: daemon_pb2.HostConfig) -> daemon_pb2.HostReply:
        """Send the whole desired state and wait until it is applied. Raises `HostRefused`."""
        config.id = next(self._ids)
        reply: asyncio.Future[daemon_pb2.HostReply] = asyncio.get_running_loop().create_future()
        self._waiting[config.id] = reply
        self._send(daemon_pb2.FromWorker(host=config))
        try:
            async with asyncio.timeout(HOST_LIMIT):
                answer = await reply
        except TimeoutError as error:
            raise HostRefused(
                "tpd did not set routes and name resolution in time; look at: tpctl daemon logs"
            ) from error
        finally:
            self._waiting.pop(config.id, None)
        if answer.error:
            raise HostRefused(answer.error)
        return answer

    def host_reply(self, answer: daemon_pb2.HostReply) -> None:
        """tpd answered."""
        waiting = self._waiting.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _send(self, message: daemon_pb2.FromWorker) -> None:
        if not self._writer.is_closing():
            self._writer.write(control.encode(message))


class Progress:
    """Progress of one request. The same step again updates its line."""

    def __init__(self, send: Callable[[daemon_pb2.Event], None]) -> None:
        self._send = send
        self._last: dict[str, str] = {}

    def say(self, step: str, text: str) -> None:
        """What is being done now. Saying the same again says nothing."""
        if self._last.get(step) != text:
            self._last[step] = text
            self._send(daemon_pb2.Event(progress=daemon_pb2.Progress(step=step, text=text)))

    def done(self, step: str, text: str) -> None:
        """It is done."""
        self._last[step] = text
        self._send(daemon_pb2.Event(progress=daemon_pb2.Progress(step=step, text=text, done=True)))
