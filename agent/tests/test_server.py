"""A whole agent in this process, a manager and a laptop beside it, real sockets and certificates between them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from agent.main import Agent
from agent.tests.fake_manager import NAMESPACE, POD_UID, FakeManager
from tunnel.agentconfig import AgentConfig, ManagerAddress, ReplacedContainer, Variable, Workload
from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, connect_stream
from tunnel.aio.link_client import LinkClient, LinkRefused
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.identity import Identity, Kind
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.queries import Query
from tunnel.proto import open_pb2
from tunnel.proto.agent_pb2 import EnvironmentRequest, EnvironmentResponse
from tunnel.proto.manager_pb2 import AgentGrants, Grant, GrantPort
from tunnel.testing.certificates import FakeAuthority, Holder

SESSION = "session-1"
ENGAGEMENT = "engagement-1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that nobody gets who lets the kernel choose."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(10_000, 30_000)
        with contextlib.suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("0.0.0.0", port))
            udp.bind(("0.0.0.0", port))
            found.append(port)
    return found


@dataclass
class Cluster:
    """The agent with what is around it."""

    authority: FakeAuthority
    manager: FakeManager
    port: int
    app: int
    ready: int
    agent: Agent
    running: asyncio.Task[None]

    def grant(self, *sessions: str, lease: float = 300) -> None:
        self.manager.grant(
            AgentGrants(
                grants=[
                    Grant(
                        engagement=ENGAGEMENT,
                        session=session,
                        mode="replace",
                        container="app",
                        ports=[
                            GrantPort(port=self.app, protocol="TCP"),
                            GrantPort(port=self.app, protocol="UDP"),
                        ],
                    )
                    for session in sessions
                ],
                lease_seconds=lease,
            )
        )

    def channel(self, holder: Holder | None) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.authority.root_pem, *((holder.key_pem, holder.chain_pem) if holder else (None, None))
        )
        return grpc.aio.secure_channel(
            f"127.0.0.1:{self.port}",
            credentials,
            options=[*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", Identity(Kind.AGENT, POD_UID).dns)],
        )

    def session(self, uid: str = SESSION) -> Holder:
        return self.authority.issue(Identity(Kind.SESSION, uid))

    async def environment(self, holder: Holder, engagement: str = ENGAGEMENT) -> dict[str, str]:
        async with self.channel(holder) as channel:
            call = channel.unary_unary(
                "/tpctl.agent.v1.Agent/GetEnvironment",
                request_serializer=EnvironmentRequest.SerializeToString,
                response_deserializer=EnvironmentResponse.FromString,
            )
            return dict((await call(EnvironmentRequest(engagement=engagement), timeout=10)).variables)


class Laptop(FlowHandler):
    """Answers what the agent opens as `echo` says, and remembers it."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self.opened: list[open_pb2.Open] = []
        self.refusal = refusal

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        self.opened.append(open_pb2.Open.FromString(body))
        if self.refusal is not None:
            flow.refuse(self.refusal)
            return FlowHandler()
        flow.accept()
        return Echo(flow)

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class Busy(Laptop):
    """Has no time to answer."""

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        self.opened.append(open_pb2.Open.FromString(body))
        return FlowHandler()


class Echo(FlowHandler):
    """Gives back what it gets, datagrams and half-closes included; small answers only."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def on_data(self, data: memoryview) -> None:
        assert self._flow.send(data) == len(data)
        self._flow.consumed(len(data))

    def on_datagram(self, data: memoryview) -> None:
        self._flow.send_datagram(bytes(data).upper())

    def on_eof(self) -> None:
        self._flow.send_eof()


@dataclass
class Opening(FlowHandler):
    """What became of a flow towards the agent."""

    answer: asyncio.Future[str] = field(default_factory=asyncio.Future)

    def on_opened(self) -> None:
        self.answer.set_result("opened")

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self.answer.set_result(refusal.name)

    def on_closed(self, broken: Broken | None) -> None:
        self.answer.set_result("closed")


@contextlib.asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A manager and an agent in place of the container `app`."""
    authority = FakeAuthority()
    manager = FakeManager(authority)
    token = tmp_path / "token"
    token.write_text("token-1")
    port, app, ready = free_ports(3)
    async with manager.serve():
        config = AgentConfig(
            ManagerAddress(NAMESPACE, "127.0.0.1", manager.port),
            Workload("Deployment", "echo"),
            port,
            ready,
            (
                ReplacedContainer(
                    "app", "_TEL_APP_A_", "_TEL_FROM_A_", "/x", (), (Variable("URL", True), Variable("HOST", True))
                ),
            ),
        )
        environ = {
            "AGENT_CONFIG": config.to_json(),
            "MANAGER_ROOT": authority.root_pem.decode(),
            "POD_UID": POD_UID,
            "PATH": "/bin",
            "_TEL_APP_A_URL": "http://$(PREFIX_HOST)",
            "_TEL_FROM_A_PREFIX_HOST": "db",
            "_TEL_APP_A_HOST": "$$(X)",
        }
        agent = Agent(environ, token)
        running = asyncio.create_task(agent.run(), name="agent")
        await manager.attending.wait()
        try:
            yield Cluster(authority, manager, port, app, ready, agent, running)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@contextlib.asynccontextmanager
async def connected(
    around: Cluster, acceptor: Laptop, holder: Holder | None = None, session: str = SESSION
) -> AsyncIterator[LinkClient]:
    """A laptop's link to the agent."""
    shown = holder or around.session(session)

    async def dial(lane: object) -> Any:
        return connect_stream(around.channel(shown))

    client = LinkClient(dial=dial, session=session, acceptor=acceptor, name="agent")
    running = asyncio.create_task(client.run(), name="client")
    there = asyncio.create_task(client.connected(), name="there")
    try:
        await asyncio.wait((running, there), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield client
    finally:
        there.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, LinkRefused):
            await running


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that happens in other tasks and processes, and tells nobody."""
    while not holds():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)


async def listening(port: int, *, wanted: bool = True) -> None:
    """Wait until somebody listens there, or nobody any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            there = False
        else:
            there = True
            writer.transport.abort()
        if there is wanted:
            return
        await asyncio.sleep(0.02)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(asyncio.wait_for(main(), 20))  # as the agent itself


def test_a_caller_reaches_the_laptop(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            await listening(around.app, wanted=False)
            around.grant(SESSION)
            laptop = Laptop()
            async with connected(around, laptop):
                await listening(around.app)
                reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
                writer.write(b"hello")
                writer.write_eof()
                assert await reader.read() == b"hello"
                writer.close()
                local = writer.get_extra_info("sockname")
                inbound = laptop.opened[-1].inbound
                assert inbound.engagement == ENGAGEMENT
                assert inbound.container_port == around.app
                assert inbound.transport == open_pb2.Transport.TCP
                assert (inbound.caller_address, inbound.caller_port) == (b"\x7f\x00\x00\x01", local[1])

    run(main)


def test_it_is_ready_while_it_serves_somebody_with_ports_or_without(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            await asyncio.sleep(0.1)
            await listening(around.ready, wanted=False)
            around.grant(SESSION)
            await listening(around.ready)
            await listening(around.app)
            around.grant()
            await listening(around.ready, wanted=False)
            await listening(around.app, wanted=False)
            grant = Grant(engagement=ENGAGEMENT, session=SESSION, mode="replace", container="app")
            around.manager.grant(AgentGrants(grants=[grant], lease_seconds=0.5))
            await listening(around.ready)
            around.manager.token = "another"  # and nobody knows who is served
            around.manager.drop()
            await listening(around.ready, wanted=False)

    run(main)


def test_datagrams(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            laptop = Laptop()
            async with connected(around, laptop):
                await listening(around.app)
                loop = asyncio.get_running_loop()
                callers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
                try:
                    for number, caller in enumerate(callers):
                        caller.setblocking(False)
                        caller.connect(("127.0.0.1", around.app))
                        for text in (f"one{number}", f"two{number}"):
                            await loop.sock_sendall(caller, text.encode())
                            assert await loop.sock_recv(caller, 100) == text.upper().encode()
                finally:
                    for caller in callers:
                        caller.close()
                transports = [one.inbound.transport for one in laptop.opened]
                assert transports.count(open_pb2.Transport.UDP) == 2

    run(main)


def test_a_caller_nobody_wants_is_reset_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patience in ("ABSENT_SECONDS", "DIAL_SECONDS"):
        monkeypatch.setattr(f"agent.inbound.{patience}", 60.0)  # longer than this test may take

    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            async with connected(around, Laptop(Refusal.REFUSED)):
                await listening(around.app)
                reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()

    run(main)


def test_a_caller_waits_a_little_for_a_laptop(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            await listening(around.app)
            reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
            writer.write(b"early")
            writer.write_eof()
            async with connected(around, Laptop()):
                assert await reader.read() == b"early"
                writer.close()
            await until(lambda: not around.agent.attached(SESSION))  # else it asks a laptop that is just leaving
            began = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert 1 < time.monotonic() - began < 8  # two seconds, and what a busy machine adds

    run(main)


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_caller_whose_laptop_vanishes_does_not_wait_long(tmp_path: Path, delay: float) -> None:
    """The laptop has been asked, answers nothing, and is gone without a word `delay` seconds later."""

    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            await listening(around.app)
            channels: list[grpc.aio.Channel] = []

            async def dial(lane: object) -> Any:
                if channels:
                    raise OSError("the laptop is gone")
                channels.append(around.channel(around.session()))
                return connect_stream(channels[0])

            laptop = Busy()
            client = LinkClient(dial=dial, session=SESSION, acceptor=laptop, name="agent")
            running = asyncio.create_task(client.run(), name="client")
            await client.connected()
            reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
            await until(lambda: bool(laptop.opened))
            await asyncio.sleep(delay)
            await channels[0].close()
            gone = time.monotonic()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert 1 < time.monotonic() - gone < 6  # two seconds, and what a busy machine adds
            running.cancel()
            await asyncio.wait([running])

    run(main)


def test_the_end_of_the_grant_ends_everything(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            async with connected(around, Laptop()) as client:
                await listening(around.app)
                reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                around.grant()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()
                await listening(around.app, wanted=False)
                await until(lambda: client.link.ended is not None)

    run(main)


def test_without_manager_things_go_on_for_a_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION, lease=5)  # time for what a busy machine does meanwhile
            async with connected(around, Laptop()):
                await listening(around.app)
                reader, writer = await asyncio.open_connection("127.0.0.1", around.app)
                around.manager.token = "another"  # the manager turns the agent away from now on
                around.manager.drop()
                await until(lambda: not around.manager.attending.is_set())
                await listening(around.app)
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                with pytest.raises(ConnectionResetError):
                    await reader.read()
                writer.close()
                await listening(around.app, wanted=False)
                # It comes back, and so does the right.
                around.manager.token = "token-1"
                await listening(around.app)

    run(main)


def test_nothing_inside_the_agent(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            async with connected(around, Laptop()) as client:
                opening = Opening()
                dial = open_pb2.Dial(transport=open_pb2.Transport.TCP, address=b"\x7f\0\0\1", port=around.port)
                client.link.open(FlowKind.STREAM, open_pb2.Open(dial=dial).SerializeToString(), opening)
                assert await opening.answer == "PROHIBITED"
                reply: asyncio.Future[bytes | None] = asyncio.Future()
                client.link.query(b"\0" * 12, reply.set_result)
                assert await reply is None

    run(main)


def test_environment_only_with_its_grant(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            mine = await around.environment(around.session())
            assert mine == {"URL": "http://db", "PREFIX_HOST": "db", "HOST": "$(X)"}
            for holder, engagement in (
                (around.session("session-2"), ENGAGEMENT),
                (around.session(), "engagement-2"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await around.environment(holder, engagement)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED

    run(main)


def test_a_session_without_grant_gets_no_link(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant("session-2")
            with pytest.raises(LinkRefused, match="engages nothing"):
                async with connected(around, Laptop()):
                    pass
            # Nor does one that names another session in its hello than in its certificate.
            with pytest.raises(LinkRefused):
                async with connected(around, Laptop(), holder=around.session("session-2"), session=SESSION):
                    pass

    run(main)


def test_a_grant_may_come_after_the_session(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            asyncio.get_running_loop().call_later(0.3, around.grant, SESSION)
            async with connected(around, Laptop()) as client:
                assert client.link.attached

    run(main)


def test_certificates_that_are_not_sessions_of_this_manager(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            stranger = FakeAuthority().issue(Identity(Kind.SESSION, SESSION))
            agent = around.authority.issue(Identity(Kind.AGENT, POD_UID))
            for holder in (None, stranger, agent):
                async with around.channel(holder) as channel:
                    call: Any = channel.unary_unary("/tpctl.agent.v1.Agent/GetEnvironment")
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call(EnvironmentRequest(engagement=ENGAGEMENT).SerializeToString(), timeout=5)
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await around.environment(around.session())

    run(main)


def test_a_sessions_certificate_that_expires_ends_its_stream_and_its_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            around.grant(SESSION)
            short = around.authority.issue(Identity(Kind.SESSION, SESSION), life=dt.timedelta(seconds=2))
            async with around.channel(short) as channel:
                stream = connect_stream(channel)  # says no hello: the agent waits for it
                ask: Any = channel.unary_unary("/tpctl.agent.v1.Agent/GetEnvironment")
                request = EnvironmentRequest(engagement=ENGAGEMENT).SerializeToString()
                assert await ask(request, timeout=5)
                assert await stream.read() is None
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(request, timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "expired" in (caught.value.details() or "")

    run(main)


def test_the_certificate_is_renewed(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as around:
            assert around.manager.certified == 1
        fresh = tmp_path / "short"
        fresh.mkdir()
        FakeManager.life, before = 1.5, FakeManager.life
        try:
            async with cluster(fresh) as around:
                around.grant(SESSION)
                await until(lambda: around.manager.certified >= 2)
                await around.environment(around.session())
        finally:
            FakeManager.life = before

    run(main)
