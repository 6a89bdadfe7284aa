"""Pumps messages between one byte stream and one lane of a link, both ways, until either ends."""

from __future__ import annotations

import asyncio
import contextlib

from tunnel.aio.byte_stream import ByteStream, StreamError
from tunnel.mux import handshake
from tunnel.mux.errors import GoAway, RemoteProtocolError
from tunnel.mux.lane import Lane
from tunnel.mux.link import Link

LAST_WORDS = 1.0
"""Seconds to get a go-away out, and for the peer to end the stream when it has it."""


async def say_go_away(stream: ByteStream, code: GoAway, text: str) -> None:
    """Tell the peer why its carrier ends, if that is still possible."""
    # When that fails, the peer is gone, or will see the stream end.
    with contextlib.suppress(TimeoutError, StreamError):
        await asyncio.wait_for(stream.write(handshake.go_away(code, text)), LAST_WORDS)


class Carrier:
    """The current byte stream of a lane. `wake` from `LinkShell.on_ready`, `stop` when it is fenced or not needed."""

    def __init__(self, link: Link, lane: Lane, generation: int, stream: ByteStream) -> None:
        self.lane = lane
        self.generation = generation
        self._link = link
        self._stream = stream
        self._ready = asyncio.Event()
        self._breach: RemoteProtocolError | None = None
        self._stopped: asyncio.Future[tuple[GoAway, str] | None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """The link has something to write."""
        self._ready.set()

    def stop(self, code: GoAway | None = None, text: str = "") -> None:
        """End the carrier, saying go-away first when there is a code."""
        if not self._stopped.done():
            self._stopped.set_result(None if code is None else (code, text))
            self._ready.set()

    async def run(self) -> None:
        """Until stopped or ended by the peer in order; raises StreamError, PeerLeft, RemoteProtocolError."""
        name = f"carrier.{self.lane.name.lower()}.{self.generation}"
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(), name=f"{name}.reader")
        writer = loop.create_task(self._write(), name=f"{name}.writer")
        pumps = (reader, writer)
        try:
            await asyncio.wait((*pumps, self._stopped), return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.done() and self._stopped.result() is not None:
                # To cancel a read or write of a gRPC call is to cancel the call, and with it what was just written: so
                # the pumps end by themselves, the reader when the peer has taken the go-away and ends the stream.
                await asyncio.wait(pumps, timeout=LAST_WORDS)
        finally:
            finished = [pump for pump in pumps if pump.done()]
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        if self._breach is not None:
            raise self._breach
        if self._stopped.done():
            return
        self._stopped.cancel()
        for pump in finished:
            error = pump.exception()
            if error is not None:
                raise error

    async def _read(self) -> None:
        link, lane, read, fenced = self._link, self.lane, self._stream.read, self._stopped.done
        while (message := await read()) is not None:
            if fenced():
                continue
            try:
                link.receive(lane, message)
            except RemoteProtocolError as error:
                self._breach = error
                self.stop(error.code, str(error))

    async def _write(self) -> None:
        link, lane, write, ready = self._link, self.lane, self._stream.write, self._ready
        # Once fenced, what the link has to send is the next carrier's; taking it here would lose it.
        while not self._stopped.done():
            message = link.next_batch(lane)
            if message is None:
                await ready.wait()
                ready.clear()
            else:
                await write(message)
        words = self._stopped.result()
        if words is not None:
            await say_go_away(self._stream, *words)
