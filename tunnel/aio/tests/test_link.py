"""Links over real grpc.aio, with two lanes, over a line that is cut; and the client's and server's manners."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import random
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from tunnel.aio import link_client
from tunnel.aio.byte_stream import ByteStream
from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, MESSAGE_OPTIONS, Context, connect_stream, tunnel_rpc_handler
from tunnel.aio.link_client import BACKOFF_LEAST, LinkClient, LinkRefused, LinkState
from tunnel.aio.link_server import LinkServer
from tunnel.aio.tasks import Tasks
from tunnel.endpoint import Broken
from tunnel.mux import frames, handshake
from tunnel.mux.errors import GoAway, PeerLeft
from tunnel.mux.flow import Flow, FlowKind
from tunnel.mux.lane import Lane
from tunnel.mux.registry import Bounds
from tunnel.mux.window import Budget
from tunnel.testing.line_proxy import LineProxy
from tunnel.testing.memory_stream import MemoryStream, memory_streams
from tunnel.testing.peers import Listener, Recorder


async def until(condition: object, seconds: float = 10.0) -> None:
    """Wait for `condition()` to hold."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # conditions of many kinds, none with an event of its own
            await asyncio.sleep(0.005)


class Rig:
    """A gRPC server with links, a line to it, and a client."""

    def __init__(self) -> None:
        self.server_side = Listener()
        self.client_side = Listener()
        self.states: list[LinkState] = []
        self.attached: list[bool] = []
        self.tasks = Tasks("rig")
        self.links = LinkServer(
            make_acceptor=lambda session, link: self.server_side,
            name="rig",
            on_attached=lambda session, link, attached: self.attached.append(attached),
        )
        self.line: LineProxy
        self.client: LinkClient
        self.run: asyncio.Task[None]

    async def dial(self, lane: Lane) -> ByteStream:
        return connect_stream(grpc.aio.insecure_channel(f"127.0.0.1:{self.line.port}", options=CHANNEL_OPTIONS))

    async def serve(self, stream: ByteStream, context: Context) -> None:
        await self.links.serve(stream, "session")


@contextlib.asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    rig = Rig()
    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    server.add_generic_rpc_handlers((tunnel_rpc_handler(rig.serve),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with LineProxy(port) as rig.line:
            rig.client = LinkClient(
                dial=rig.dial,
                session="session",
                acceptor=rig.client_side,
                name="rig",
                on_state=rig.states.append,
            )
            rig.run = rig.tasks.spawn(rig.client.run(), name="client")
            async with asyncio.timeout(5):
                await rig.client.connected()
            yield rig
            await rig.tasks.stop()
    finally:
        await server.stop(None)


def open_flow(rig: Rig, body: bytes = b"") -> Recorder:
    mine = Recorder(close_after_eof=False)
    mine.endpoint = rig.client.link.open(FlowKind.STREAM, body, mine)
    return mine


async def test_connects_carries_both_ways_and_answers_queries() -> None:
    async with rigged() as rig:
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        ((_, theirs),) = rig.server_side.flows.values()
        data = random.Random(1).randbytes(20 << 20)
        mine.write(data)
        mine.end()
        theirs.write(data)
        await until(lambda: mine.closed == [None])
        assert hashlib.sha256(theirs.received).digest() == hashlib.sha256(data).digest()
        assert mine.received == data
        assert rig.client.link.lanes[Lane.BULK].sent > 0
        answers: list[bytes | None] = []
        rig.client.link.query(b"q", answers.append)
        await until(lambda: answers == [b"re:q"])
        assert rig.states == [LinkState.CONNECTED]
        link = rig.links.link("session")
        assert link is not None
        inbound = Recorder()
        inbound.endpoint = link.open(FlowKind.STREAM, b"inbound", inbound)
        await until(lambda: rig.client_side.bodies == [b"inbound"] and inbound.opened)


async def test_opening_takes_one_round_trip() -> None:
    async with rigged() as rig:

        def answer(flow: Flow) -> None:
            rig.line.mute()  # whatever else the client might have to say does not arrive
            flow.accept()

        rig.server_side.answer = answer
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        rig.line.restore()


@pytest.mark.parametrize("silent", [False, True])
async def test_flows_go_on_after_the_line_was_cut(silent: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with rigged() as rig:
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        ((_, theirs),) = rig.server_side.flows.values()
        data = random.Random(2).randbytes(60 << 20)
        mine.write(data)
        theirs.write(data)
        await until(lambda: len(mine.received) > 1 << 20 and len(theirs.received) > 1 << 20)
        rig.line.cut(silent=silent)
        assert not theirs.closed
        await until(lambda: LinkState.RECONNECTING in rig.states)
        await asyncio.sleep(0.5)
        rig.line.restore()
        await until(lambda: rig.states[-1] is LinkState.CONNECTED)
        mine.end()
        theirs.end()
        await until(lambda: mine.closed == [None] and theirs.closed == [None], 30)
        assert theirs.received == data
        assert mine.received == data
        said = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
        assert [text for text in said if "did not close within" not in text] == []


async def test_a_flow_is_not_slowed_by_stalled_readers() -> None:
    async with rigged() as rig:
        rig.server_side.__init__(lambda body: Recorder(stalled=body == b"stall"))  # type: ignore[misc]  # again
        for _ in range(64):
            open_flow(rig, b"stall").write(bytes(1 << 20))
        await until(lambda: len(rig.server_side.flows) == 64)
        await asyncio.sleep(0.2)
        link = rig.links.link("session")
        assert link is not None
        assert link.held <= 64 * 65536
        for _ in range(20):
            mine = open_flow(rig, b"quick")
            mine.write(bytes(10000))
            mine.end()
            await until(lambda mine=mine: bool(mine.closed))


async def test_the_session_ends() -> None:
    async with rigged() as rig:
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        ((_, theirs),) = rig.server_side.flows.values()
        rig.links.end_session("session")
        assert theirs.closed == [Broken.ENDED]
        with pytest.raises(LinkRefused, match="has ended"):
            await asyncio.wait_for(asyncio.shield(rig.run), 5)
        assert mine.closed == [Broken.ENDED]
        assert rig.attached == [True, False]


@pytest.mark.parametrize("busy", [False, True])
async def test_a_client_that_leaves_says_so(busy: bool) -> None:
    async with rigged() as rig:
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        ((_, theirs),) = rig.server_side.flows.values()
        if busy:
            mine.write(bytes(100 << 20))
            theirs.write(bytes(100 << 20))
            await until(lambda: len(mine.received) > 1 << 20 and len(theirs.received) > 1 << 20)
        rig.run.cancel()
        await until(lambda: theirs.closed == [Broken.ENDED])
        assert rig.links.links("session") == []


async def test_a_client_whose_server_breaks_the_protocol_says_so() -> None:
    async with rigged() as rig:
        link = rig.links.link("session")
        assert link is not None
        said: list[GoAway | int] = []
        receive = link.receive

        def listen(lane: Lane, message: bytes) -> None:
            try:
                receive(lane, message)
            except PeerLeft as left:
                said.append(left.code)
                raise

        link.receive = listen  # type: ignore[method-assign]  # hears what the client says
        link.lanes[0].control.append(frames.frame(frames.Type.ACK, 1000, 0))
        link.hurry_acks(link.lanes[0])
        await until(lambda: said == [GoAway.PROTOCOL])
        await until(lambda: rig.states[1:] == [LinkState.RECONNECTING, LinkState.CONNECTED])


async def test_a_server_that_leaves_is_dialled_again() -> None:
    async with rigged() as rig:
        mine = open_flow(rig)
        await until(lambda: mine.opened)
        rig.links.close()
        await until(lambda: rig.states == [LinkState.CONNECTED, LinkState.RECONNECTING, LinkState.CONNECTED])
        await until(lambda: mine.closed == [Broken.LINK_LOST])
        again = open_flow(rig)
        await until(lambda: again.opened)


async def test_permission_denied_is_final() -> None:
    async def refuse(stream: ByteStream, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no session of that name")

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((tunnel_rpc_handler(refuse),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def dial(lane: Lane) -> ByteStream:
        return connect_stream(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS))

    client = LinkClient(dial=dial, session="s", acceptor=Listener(), name="refused")
    with pytest.raises(LinkRefused, match="no session of that name"):
        await asyncio.wait_for(client.run(), 5)
    await server.stop(None)


class MemoryRig:
    """Client and server joined by streams in memory, which are fast to cut."""

    def __init__(self, *, linger: float = 3600.0, bounds: Bounds | None = None, fair: bool = False) -> None:
        self.listener = Listener()
        self.tasks = Tasks("memory")
        self.links = LinkServer(
            make_acceptor=lambda session, link: self.listener, name="memory", linger=linger, bounds=bounds, fair=fair
        )
        self.streams: dict[Lane, MemoryStream] = {}
        self.dialled_at: list[float] = []
        self.refuse: Exception | None = None

    async def dial(self, lane: Lane) -> ByteStream:
        self.dialled_at.append(asyncio.get_running_loop().time())
        if self.refuse is not None:
            raise self.refuse
        near, far = memory_streams()
        self.streams[lane] = near
        self.tasks.spawn(self._serve(far), name="serve")
        return near

    async def _serve(self, far: MemoryStream) -> None:
        try:
            await self.links.serve(far, "session")
        finally:
            await far.close()  # as gRPC does when the handler ends

    def client(self, session: str = "session") -> LinkClient:
        client = LinkClient(dial=self.dial, session=session, acceptor=Listener(), name="memory")
        self.run = self.tasks.spawn(client.run(), name="client")
        return client


async def test_a_refusal_says_its_code() -> None:
    rig = MemoryRig()
    rig.refuse = PeerLeft(GoAway.VERSION, "too old")
    rig.client()
    with pytest.raises(LinkRefused, match="too old") as refused:
        await asyncio.wait_for(asyncio.shield(rig.run), 5)
    assert refused.value.code is GoAway.VERSION
    await rig.tasks.stop()


async def test_whatever_dial_raises_is_tried_again_but_not_in_a_hurry() -> None:
    rig = MemoryRig()
    rig.refuse = ValueError("library trouble")
    client = rig.client()
    await until(lambda: len(rig.dialled_at) == 5)
    pauses = [after - before for before, after in itertools.pairwise(rig.dialled_at)]
    assert all(pause > BACKOFF_LEAST * 2**index * 0.45 for index, pause in enumerate(pauses)), pauses
    assert client.trouble == "library trouble"
    rig.refuse = None
    await asyncio.wait_for(client.connected(), 5)
    assert client.trouble == ""
    rig.refuse = LinkRefused("not for you")
    await rig.streams[Lane.INTERACTIVE].cut()
    with pytest.raises(LinkRefused, match="not for you"):
        await asyncio.wait_for(asyncio.shield(rig.run), 5)
    await rig.tasks.stop()


async def test_another_session_in_hello_is_refused_for_good() -> None:
    rig = MemoryRig()
    rig.client("somebody else")
    with pytest.raises(LinkRefused, match="another session"):
        await asyncio.wait_for(asyncio.shield(rig.run), 5)
    await rig.tasks.stop()


async def test_a_detached_link_lingers_and_then_ends() -> None:
    rig = MemoryRig(linger=0.3)
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    mine = Recorder()
    mine.endpoint = client.link.open(FlowKind.STREAM, b"", mine)
    await until(lambda: mine.opened)
    ((_, theirs),) = rig.listener.flows.values()
    rig.refuse = OSError("no line")
    loop = asyncio.get_running_loop()
    cut_at = loop.time()
    await rig.streams[Lane.INTERACTIVE].cut()
    await until(lambda: theirs.closed == [Broken.LINK_LOST])
    assert loop.time() - cut_at > 0.29
    assert rig.links.links("session") == []
    rig.refuse = None
    await asyncio.wait_for(client.connected(), 5)
    await until(lambda: mine.closed == [Broken.LINK_LOST], 5)
    await rig.tasks.stop()


async def test_a_carrier_that_is_heard_again_is_used_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.mux.link.SUSPECT_AFTER", 0.3)
    monkeypatch.setattr("tunnel.mux.link.CLIENT_IDLE", 0.5)
    monkeypatch.setattr(link_client, "BACKOFF_MOST", 0.1)
    monkeypatch.setattr(link_client, "TIDY_INTERVAL", 0.05)
    rig = MemoryRig(linger=0.2)
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    mine = Recorder()
    mine.endpoint = client.link.open(FlowKind.STREAM, b"", mine)
    await until(lambda: mine.opened)
    ((_, theirs),) = rig.listener.flows.values()
    rig.refuse = OSError("no new carrier")
    for size in (1, 2):
        stream = rig.streams[Lane.INTERACTIVE]
        await stream.hold()
        await until(lambda: client.state is LinkState.RECONNECTING)
        theirs.write(b"x")
        await asyncio.sleep(0.5)  # longer than it would linger without a carrier
        await stream.hold(False)
        await until(lambda: client.state is LinkState.CONNECTED)
        await until(lambda size=size: len(mine.received) == size)
    assert mine.closed == theirs.closed == []
    rig.refuse = None
    await rig.tasks.stop()


async def test_a_client_cancelled_twice_or_while_it_dials_leaves_nothing_behind() -> None:
    rig = MemoryRig()
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    await rig.streams[Lane.INTERACTIVE].hold()  # nobody hears the server end the carrier
    rig.run.cancel()
    await until(lambda: rig.links.links("session") == [])
    rig.run.cancel()
    await asyncio.wait({rig.run}, timeout=5)
    assert not {task for task in asyncio.all_tasks() if task.get_name().startswith("link.")}

    near, far = memory_streams()

    async def dial(lane: Lane) -> ByteStream:
        return near

    client = LinkClient(dial=dial, session="session", acceptor=Listener(), name="memory")
    run = rig.tasks.spawn(client.run(), name="client")
    assert await far.read() is not None
    run.cancel()
    await asyncio.wait({run}, timeout=5)
    assert not {task for task in asyncio.all_tasks() if task.get_name().startswith("link.")}
    assert await asyncio.wait_for(far.read(), 5) is None
    await rig.tasks.stop()


async def test_a_client_that_ends_leaves_nothing_behind() -> None:
    rig = MemoryRig()
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    mine = Recorder()
    mine.endpoint = client.link.open(FlowKind.STREAM, b"", mine)
    await until(lambda: mine.opened)
    ((_, theirs),) = rig.listener.flows.values()
    rig.run.cancel()
    await until(lambda: theirs.closed == [Broken.ENDED], 1)
    assert rig.links.links("session") == []
    await rig.tasks.stop()


async def test_detached_links_beyond_the_bounds_end_at_once() -> None:
    rig = MemoryRig(bounds=Bounds(links=0))
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    rig.refuse = OSError("no line")
    await rig.streams[Lane.INTERACTIVE].cut()
    await until(lambda: rig.links.links("session") == [])
    await rig.tasks.stop()


async def test_the_bulk_carrier_is_dialled_on_need_and_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_client, "BULK_IDLE", 0.2)
    monkeypatch.setattr(link_client, "TIDY_INTERVAL", 0.1)
    rig = MemoryRig()
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    mine = Recorder(close_after_eof=False)
    mine.endpoint = client.link.open(FlowKind.STREAM, b"", mine)
    await until(lambda: mine.opened)
    assert Lane.BULK not in rig.streams
    ((_, theirs),) = rig.listener.flows.values()
    theirs.write(bytes(8 << 20))
    await until(lambda: len(mine.received) == 8 << 20 and Lane.BULK in rig.streams)
    await until(lambda: client.link.lanes[Lane.BULK].attached is None)
    dials = len(rig.dialled_at)
    theirs.write(bytes(8 << 20))
    await until(lambda: len(mine.received) == 16 << 20 and len(rig.dialled_at) > dials)
    await rig.tasks.stop()


async def test_garbage_in_place_of_a_hello() -> None:
    rig = MemoryRig()
    for garbage in (b"", b"garbage", bytes(100), handshake.go_away(GoAway.PROTOCOL, "")):
        near, far = memory_streams()
        serve = rig.tasks.spawn(rig.links.serve(far, "session"), name="garbage")
        await near.write(garbage)
        await asyncio.wait_for(serve, 2)
    assert rig.links.links("session") == []
    near, far = memory_streams()
    serve = rig.tasks.spawn(rig.links.serve(far, "session"), name="garbage")
    await near.write(b"x" * 50)
    answer = await asyncio.wait_for(near.read(), 2)
    assert answer is not None
    with pytest.raises(PeerLeft) as left:
        handshake.parse(answer)
    assert left.value.code == GoAway.PROTOCOL
    await rig.tasks.stop()


async def test_a_link_that_ends_for_a_breach_is_reported_as_detached() -> None:
    rig = MemoryRig()
    attached: list[bool] = []
    rig.links.on_attached = lambda session, link, now: attached.append(now)
    near, far = memory_streams()
    serve = rig.tasks.spawn(rig.links.serve(far, "session"), name="breach")
    hello = handshake.Hello(1, 1, "test", "session", b"c" * 16, b"", Lane.INTERACTIVE, 1, 0, handshake.Limits())
    await near.write(hello.encode())
    await near.read()
    assert attached == [True]
    await near.write(frames.message(1, (), (frames.frame(frames.Type.DATA, 1001, 0, b"never opened"),)))
    await near.close()
    await asyncio.wait_for(serve, 5)
    assert attached == [True, False]
    assert rig.links.links("session") == []


async def test_a_server_that_breaks_the_protocol_gets_a_new_link() -> None:
    hellos: list[handshake.Hello] = []
    tasks = Tasks("rig")

    async def misbehave(stream: ByteStream) -> None:
        message = await stream.read()
        assert message is not None
        hello = handshake.parse(message)
        hellos.append(hello)
        answer = dataclasses.replace(hello, instance=b"s" * 16, peer_instance=hello.instance, received=0)
        await stream.write(answer.encode())
        await stream.write(frames.message(1, (), (frames.frame(frames.Type.DATA, 1001, 0, b"never opened"),)))
        await stream.read()
        await stream.close()

    async def dial(lane: Lane) -> ByteStream:
        near, far = memory_streams()
        tasks.spawn(misbehave(far), name="misbehave")
        return near

    client = LinkClient(dial=dial, session="session", acceptor=Listener(), name="rig")
    run = tasks.spawn(client.run(), name="client")
    await until(lambda: len(hellos) >= 3)
    assert not run.done()
    assert len({hello.instance for hello in hellos}) == len(hellos)
    await tasks.stop()


async def test_each_session_has_a_part_of_the_budget_for_all_its_links() -> None:
    for fair in (False, True):
        rig = MemoryRig(fair=fair)
        budgets: list[Budget] = []
        for session, instance in (("a", b"1"), ("a", b"2"), ("b", b"3")):
            near, far = memory_streams()
            rig.tasks.spawn(rig.links.serve(far, session), name="serve")
            hello = handshake.Hello(1, 1, "", session, instance * 16, b"", Lane.INTERACTIVE, 1, 0, handshake.Limits())
            await near.write(hello.encode())
            await near.read()
            budgets.append(rig.links.links(session)[0].budget)
        assert budgets[0] is budgets[1]
        assert (budgets[0] is not budgets[2]) is fair
        assert (budgets[0] is rig.links.budget) is not fair
        await rig.tasks.stop()


async def test_a_client_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.aio.link_server.HELLO_TIMEOUT", 0.1)
    rig = MemoryRig()
    _, far = memory_streams()
    await asyncio.wait_for(rig.links.serve(far, "session"), 2)


async def test_cancelled_serve_detaches_and_the_client_comes_back() -> None:
    rig = MemoryRig()
    client = rig.client()
    await asyncio.wait_for(client.connected(), 5)
    link = rig.links.link("session")
    assert link is not None
    for task in list(rig.tasks._tasks):
        if task.get_name().endswith("serve"):
            task.cancel()
    await until(lambda: not link.attached)
    await until(lambda: link.attached)
    await rig.tasks.stop()
