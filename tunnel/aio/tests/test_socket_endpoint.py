"""Operating-system sockets as endpoints, and a whole path: socket, flow, flow, socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from tunnel.aio.byte_stream import ByteStream
from tunnel.aio.link_client import LinkClient
from tunnel.aio.link_server import LinkServer
from tunnel.aio.socket_endpoint import (
    READ_AHEAD,
    WRITE_BUFFER,
    BoundedSocketEndpoint,
    Refused,
    SocketEndpoint,
    dial_tcp,
    refusal_of,
)
from tunnel.aio.tasks import Tasks
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.lane import Lane
from tunnel.mux.queries import Query
from tunnel.mux.window import Budget
from tunnel.splice import Splice
from tunnel.testing.memory_stream import memory_streams
from tunnel.testing.peers import Listener, Recorder


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for `condition()` to hold."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # conditions of many kinds, none with an event of its own
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[SocketEndpoint, socket.socket]]:
    """An endpoint and the plain socket at its other side."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        endpoint = await dial_tcp("127.0.0.1", listener.getsockname()[1], 5.0)
        peer, _ = await loop.sock_accept(listener)
        peer.setblocking(False)
        with peer:
            try:
                yield endpoint, peer
            finally:
                endpoint.reset()
                await asyncio.sleep(0)


@pytest.mark.parametrize("first", ["we", "they"])
async def test_half_close_in_both_orders(first: str) -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (endpoint, peer):
        mine = Recorder(close_after_eof=False)
        mine.endpoint = endpoint
        endpoint.start(mine)
        if first == "we":
            mine.write(b"request")
            mine.end()
            assert await loop.sock_recv(peer, 100) == b"request"
            assert await loop.sock_recv(peer, 100) == b""
            await loop.sock_sendall(peer, b"answer")
            peer.shutdown(socket.SHUT_WR)
        else:
            await loop.sock_sendall(peer, b"answer")
            peer.shutdown(socket.SHUT_WR)
            await until(lambda: mine.eof)
            assert mine.closed == []
            mine.write(b"request")
            mine.end()
            assert await loop.sock_recv(peer, 100) == b"request"
            assert await loop.sock_recv(peer, 100) == b""
        await until(lambda: mine.closed == [None])
        assert mine.received == b"answer"


async def test_reset_is_seen_as_reset_both_ways() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (endpoint, peer):
        mine = Recorder()
        endpoint.start(mine)
        endpoint.reset()
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(peer, 100)
        assert mine.closed == []
    async with connected() as (endpoint, peer):
        mine = Recorder()
        endpoint.start(mine)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: mine.closed == [Broken.RESET])


async def test_what_comes_before_the_handler_waits_for_it() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (endpoint, peer):
        await loop.sock_sendall(peer, b"early")
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        mine = Recorder()
        mine.endpoint = endpoint
        endpoint.start(mine)
        await until(lambda: mine.closed == [None])
        assert (bytes(mine.received), mine.eof) == (b"early", True)


async def test_reading_stops_while_nobody_consumes_and_goes_on_after() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (endpoint, peer):
        mine = Recorder(stalled=True)
        mine.endpoint = endpoint
        endpoint.start(mine)
        data = random.Random(1).randbytes(20 << 20)
        sending = loop.create_task(loop.sock_sendall(peer, data))
        await until(lambda: len(mine.received) >= READ_AHEAD)
        await asyncio.sleep(0.3)
        assert not sending.done()
        assert READ_AHEAD <= len(mine.received) <= 2 * READ_AHEAD
        mine.read_on()
        await asyncio.wait_for(sending, 10)
        await until(lambda: len(mine.received) == len(data))
        assert mine.received == data


async def test_nothing_more_is_taken_while_the_peer_does_not_read() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (endpoint, peer):
        mine = Recorder(close_after_eof=False)
        mine.endpoint = endpoint
        endpoint.start(mine)
        piece = random.Random(2).randbytes(64 << 10)
        for _ in range(400):
            mine.write(piece)
        mine.end()
        await asyncio.sleep(0.2)
        assert mine.unsent > 10 << 20
        assert endpoint._transport is not None
        assert endpoint._transport.get_write_buffer_size() <= WRITE_BUFFER + len(piece)
        received = bytearray()
        while chunk := await loop.sock_recv(peer, 1 << 20):
            received += chunk
        assert received == piece * 400


async def test_refused_timeout_and_the_other_outcomes() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Refused) as refused:
            await dial_tcp("127.0.0.1", unused.getsockname()[1], 5.0)
        assert refused.value.refusal is Refusal.REFUSED
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # once its queue is full, Linux does not answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(Refused) as refused:
            await dial_tcp("127.0.0.1", full.getsockname()[1], 0.3)
        assert refused.value.refusal is Refusal.TIMEOUT
    for number, refusal in (
        (errno.EHOSTUNREACH, Refusal.UNREACHABLE),
        (errno.ENETUNREACH, Refusal.UNREACHABLE),
        (errno.ETIMEDOUT, Refusal.TIMEOUT),
        (errno.EMFILE, Refusal.BUSY),
        (errno.EADDRNOTAVAIL, Refusal.BUSY),
        (errno.EPERM, Refusal.PROHIBITED),
    ):
        assert refusal_of(OSError(number, "")) is refusal


class Dialler:
    """What a manager does with an open: dial, join, accept."""

    def __init__(self, tasks: Tasks, port: int, budget: Budget | None) -> None:
        self._tasks = tasks
        self._port = port
        self._budget = budget

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        splice = Splice()
        self._tasks.spawn(self._dial(flow, splice), name="dial")
        return splice.right

    async def _dial(self, flow: Flow, splice: Splice) -> None:
        endpoint = await dial_tcp("127.0.0.1", self._port, 5.0, self._budget)
        splice.join(endpoint, flow)
        endpoint.start(splice.left)
        flow.accept()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class Joiner(FlowHandler):
    """What a worker does with a connection: join it once the flow is open."""

    def __init__(self, endpoint: SocketEndpoint) -> None:
        self.endpoint = endpoint
        self.splice = Splice()
        self.flow: Flow | None = None

    def on_opened(self) -> None:
        assert self.flow is not None
        self.flow.handler = self.splice.right
        self.splice.join(self.endpoint, self.flow)
        self.endpoint.start(self.splice.left)


@contextlib.asynccontextmanager
async def path(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
    budget: Budget | None = None,
    far: Budget | None = None,
) -> AsyncIterator[int]:
    """A port that leads through a socket, a flow over a link in memory, and a socket to `serve`. `budget`: of the
    first of the two sockets, and of the flow's end there; `far`: of the second ones, shared as a manager does."""
    loop = asyncio.get_running_loop()
    tasks = Tasks("rig")
    target = await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]  # callbacks may be coroutines
    links = LinkServer(
        make_acceptor=lambda session, link: Dialler(
            tasks, target.sockets[0].getsockname()[1], None if far is None else link.budget
        ),
        name="path",
        budget=far,
        fair=far is not None,
    )

    async def dial(lane: Lane) -> ByteStream:
        near, far = memory_streams()
        tasks.spawn(links.serve(far, "session"), name="serve")
        return near

    client = LinkClient(dial=dial, session="session", acceptor=Listener(), name="path", budget=budget)
    tasks.spawn(client.run(), name="client")
    await asyncio.wait_for(client.connected(), 5)

    def on_connected(endpoint: SocketEndpoint) -> None:
        joiner = Joiner(endpoint)
        joiner.flow = client.link.open(FlowKind.STREAM, b"", joiner)

    def endpoint() -> SocketEndpoint:
        return BoundedSocketEndpoint(on_connected, budget) if budget is not None else SocketEndpoint(on_connected)

    front = await loop.create_server(endpoint, "127.0.0.1", 0)
    try:
        yield front.sockets[0].getsockname()[1]
        await until(lambda: not client.link.flows)
    finally:
        await tasks.stop()
        front.close()
        target.close()


@pytest.mark.parametrize("dialled", [False, True])
async def test_many_stalled_connections_hold_no_more_than_the_budget(dialled: bool) -> None:
    """Callers that send where nobody reads, and callers that do not read what is sent; both sides give up."""

    async def stand_still(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"d":
            writer.write(bytes(4 << 20))
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a server's writer has a Transport
        still.append(writer)

    most = 4 << 20
    whole = 2 * most if dialled else most  # of which one session gets half
    budget = Budget(ceiling=whole, pool=whole // 2, buffers=whole)
    still: list[asyncio.StreamWriter] = []
    worst = 0
    async with path(stand_still, None if dialled else budget, budget if dialled else None) as port:
        callers = []
        for number in range(100):
            caller = socket.create_connection(("127.0.0.1", port))
            caller.setblocking(False)
            callers.append(caller)
            caller.send(b"d" if number % 2 else b"u")
        await until(lambda: len(still) == len(callers))
        for _ in range(100):
            for caller in callers[::2]:
                with contextlib.suppress(BlockingIOError):
                    caller.send(bytes(1 << 20))
            await asyncio.sleep(0.005)
            worst = max(worst, budget.buffered)
        assert budget.reserved + budget.grown <= most
        for caller in callers:
            abort(caller)
        for writer in still:
            writer.transport.abort()
    assert most // 2 < worst < most * 1.5
    await until(lambda: (budget.buffered, budget.reserved, budget.grown) == (0, 0, 0))


def abort(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_a_whole_path_keeps_bytes_order_and_half_close() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        while data := await reader.read(1 << 18):
            digest.update(data)
            writer.write(data)
            await writer.drain()
        writer.write(digest.digest())
        writer.close()

    async with path(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = random.Random(3).randbytes(40 << 20)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.get_running_loop().create_task(send())
        received = await reader.read(-1)
        await sending
        assert received == data + hashlib.sha256(data).digest()
        writer.close()
        await writer.wait_closed()


async def test_a_reset_crosses_the_path() -> None:
    seen: list[type[BaseException]] = []

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(100)
        except ConnectionError as error:
            seen.append(type(error))
        writer.close()

    async with path(wait) as port:
        raw = socket.create_connection(("127.0.0.1", port))
        await asyncio.sleep(0.2)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        await until(lambda: seen == [ConnectionResetError])
