"""The sessions' port over real TLS on loopback: who gets in, what can be dialled, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manager import pki
from manager.config import Config
from manager.kube.cluster import ClusterView
from manager.registry import LiveSessions
from manager.serve.credentials import Serving
from manager.serve.dns import ClusterDns
from manager.serve.resolver import Resolver
from manager.serve.sessions import OWN, SessionsServer
from manager.state.dialpolicy import DialPolicy
from manager.state.tests.samples import session
from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, MESSAGE_OPTIONS, connect_stream
from tunnel.aio.link_client import LinkClient, LinkRefused
from tunnel.endpoint import Broken, Refusal
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.informer import Informer
from tunnel.kube.kubeconfig import Credentials
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.lane import Lane
from tunnel.mux.queries import Query
from tunnel.proto import manager_pb2, open_pb2

SESSION = Identity(Kind.SESSION, "s1")


class Everywhere(DialPolicy):
    """Dials loopback, where these tests' servers are, and refuses link-local as ever."""

    def refusal(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
        return None if address.is_loopback else super().refusal(address)


class NothingInbound:
    """A laptop at which nobody opens anything."""

    def on_open(self, flow: Flow, body: bytes) -> FlowHandler:
        flow.refuse(Refusal.PROHIBITED)
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class Port:
    """A running sessions' port, and the means to call it."""

    def __init__(self) -> None:
        now = dt.datetime.now(dt.UTC)
        self.authority = pki.Authority(pki.make_root("ns", now), now)
        self.live = LiveSessions()
        self.live.update({"s1": session("s1")})
        api = Api(Credentials(context="", namespace="", server="http://127.0.0.1:1"))
        self.cluster = ClusterView(api, Config("p", "u", "ns"), Informer(api, "/pods"), "cluster.local")
        self.cluster.current = manager_pb2.Cluster(version="1")
        self.cluster.known.set()
        dns = ClusterDns(Resolver([]), "cluster.local")
        self.sessions = SessionsServer(self.live, self.cluster, Everywhere(), dns)
        self.server = grpc.aio.server(options=MESSAGE_OPTIONS)
        self.server.add_generic_rpc_handlers(self.sessions.handlers())
        serving = Serving(self.authority, Identity(Kind.MANAGER, "ns"), ())
        self.port = self.server.add_secure_port("127.0.0.1:0", serving.server_credentials(require_client=True))

    def channel(
        self, identity: Identity | None, life: dt.timedelta = pki.SESSION_LIFE, authority: pki.Authority | None = None
    ) -> grpc.aio.Channel:
        """A channel as this party, whose certificate this manager (or another) signed."""
        key_pem = chain_pem = None
        if identity is not None:
            key = ec.generate_private_key(ec.SECP256R1())
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            chain_pem = (authority or self.authority).sign(identity, public, life, dt.datetime.now(dt.UTC)).chain_pem
            key_pem = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        credentials = grpc.ssl_channel_credentials(self.authority.root_pem, key_pem, chain_pem)
        name = ("grpc.ssl_target_name_override", "ns.manager.tpctl")
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=[*CHANNEL_OPTIONS, name])

    async def watch(self, channel: grpc.aio.Channel) -> grpc.StatusCode | str:
        """The version that WatchCluster tells first, or how the call failed."""
        call = channel.unary_stream(
            "/tpctl.manager.v1.Manager/WatchCluster",
            request_serializer=manager_pb2.WatchClusterRequest.SerializeToString,
            response_deserializer=manager_pb2.Cluster.FromString,
        )(manager_pb2.WatchClusterRequest(), timeout=5)
        try:
            message = await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        else:
            assert isinstance(message, manager_pb2.Cluster)
            return message.version
        finally:
            await channel.close()

    def link(self, session: str = "s1") -> LinkClient:
        """A laptop's link, not yet running."""

        async def dial(lane: Lane) -> object:
            return connect_stream(self.channel(Identity(Kind.SESSION, session)))

        return LinkClient(dial=dial, session=session, acceptor=NothingInbound(), name="test")  # type: ignore[arg-type]  # a ByteStream


def _run(test: Callable[[Port], Awaitable[None]]) -> None:
    async def body() -> None:
        port = Port()
        await port.server.start()
        try:
            async with asyncio.timeout(20):
                await test(port)
        finally:
            await port.sessions.close()
            await port.server.stop(None)

    asyncio.run(body())


def test_only_certificates_of_live_sessions_get_in() -> None:
    async def test(port: Port) -> None:
        assert await port.watch(port.channel(SESSION)) == "1"
        assert await port.watch(port.channel(None)) is grpc.StatusCode.UNAVAILABLE
        now = dt.datetime.now(dt.UTC)
        other = pki.Authority(pki.make_root("ns", now), now)
        assert await port.watch(port.channel(SESSION, authority=other)) is grpc.StatusCode.UNAVAILABLE
        unknown = port.channel(Identity(Kind.SESSION, "s2"))
        assert await port.watch(unknown) is grpc.StatusCode.PERMISSION_DENIED
        agent = await port.watch(port.channel(Identity(Kind.AGENT, "s1")))
        assert agent in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)

    _run(test)


def test_a_session_that_calls_before_it_is_published_is_waited_for() -> None:
    async def test(port: Port) -> None:
        port.live.update({})
        watching = asyncio.create_task(port.watch(port.channel(SESSION)), name="watching")
        await asyncio.sleep(0.2)
        assert not watching.done()
        port.live.update({"s1": session("s1")})
        assert await watching == "1"

    _run(test)


class _Caller(FlowHandler):
    """Collects what a flow tells."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Refusal | None] = loop.create_future()
        self.closed: asyncio.Future[Broken | None] = loop.create_future()
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self.received = b""
        self.flow: Flow | None = None

    def on_opened(self) -> None:
        self.outcome.set_result(None)

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self.outcome.set_result(refusal)

    def on_data(self, data: memoryview) -> None:
        self.received += bytes(data)
        if self.flow is not None:
            self.flow.consumed(len(data))

    def on_datagram(self, data: memoryview) -> None:
        self.datagrams.put_nowait(bytes(data))

    def on_closed(self, broken: Broken | None) -> None:
        if not self.closed.done():
            self.closed.set_result(broken)


def _dial(link: LinkClient, address: str, port: int, *, udp: bool = False) -> _Caller:
    caller = _Caller()
    transport = open_pb2.UDP if udp else open_pb2.TCP
    dial = open_pb2.Dial(transport=transport, address=ipaddress.ip_address(address).packed, port=port)
    kind = FlowKind.DATAGRAM if udp else FlowKind.STREAM
    caller.flow = link.link.open(kind, open_pb2.Open(dial=dial).SerializeToString(), caller)
    return caller


async def _echo_server() -> tuple[asyncio.Server, int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionResetError):  # what happens to those who call for an ended session
            writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def test_what_is_dialled_answers_or_is_refused() -> None:
    async def test(port: Port) -> None:
        server, number = await _echo_server()
        link = port.link()
        running = asyncio.create_task(link.run(), name="link")
        await link.connected()
        caller = _dial(link, "127.0.0.1", number)
        assert await caller.outcome is None
        assert caller.flow is not None
        caller.flow.send(memoryview(b"hello"))
        caller.flow.send_eof()
        assert await caller.closed is None
        assert caller.received == b"hello"

        assert await _dial(link, "127.0.0.1", 1).outcome is Refusal.REFUSED
        assert await _dial(link, "169.254.169.254", 80).outcome is Refusal.PROHIBITED
        inbound = open_pb2.Open(inbound=open_pb2.Inbound(engagement="x")).SerializeToString()
        for body in (b"", b"\xff\xff", inbound):
            other = _Caller()
            link.link.open(FlowKind.STREAM, body, other)
            assert await other.outcome is Refusal.PROHIBITED
        mismatch = _Caller()
        tcp = open_pb2.Dial(transport=open_pb2.TCP, address=b"\x7f\0\0\x01", port=number)
        link.link.open(FlowKind.DATAGRAM, open_pb2.Open(dial=tcp).SerializeToString(), mismatch)
        assert await mismatch.outcome is Refusal.PROHIBITED
        running.cancel()
        server.close()

    _run(test)


class _UdpEcho(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's do not inherit from asyncio's

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(data, address)


def test_datagrams_go_both_ways_and_a_closed_port_ends_the_association() -> None:
    async def test(port: Port) -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_UdpEcho, local_addr=("127.0.0.1", 0))
        number = transport.get_extra_info("sockname")[1]
        link = port.link()
        running = asyncio.create_task(link.run(), name="link")
        await link.connected()
        caller = _dial(link, "127.0.0.1", number, udp=True)
        assert caller.flow is not None
        for size in (1, 1400, 60_000):
            caller.flow.send_datagram(b"x" * size)
            assert len(await caller.datagrams.get()) == size
        closed = _dial(link, "127.0.0.1", 1, udp=True)
        assert closed.flow is not None
        closed.flow.send_datagram(b"x")
        assert await closed.closed is Broken.REFUSED
        running.cancel()
        transport.close()

    _run(test)


def test_a_memory_limit_refuses_a_greedy_laptops_connections_but_not_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.serve.sessions.memory_limit", lambda: OWN + (2 << 20))

    async def test(port: Port) -> None:
        port.live.update({uid: session(uid) for uid in ("s1", "s2")})
        server, number = await _echo_server()
        greedy, other = port.link("s1"), port.link("s2")
        running = [asyncio.create_task(link.run(), name="link") for link in (greedy, other)]
        await asyncio.gather(greedy.connected(), other.connected())
        outcomes = [await _dial(greedy, "127.0.0.1", number).outcome for _ in range(200)]
        assert 32 < outcomes.count(None) < 128
        assert set(outcomes) == {None, Refusal.BUSY}
        assert await _dial(other, "127.0.0.1", number).outcome is None
        for task in running:
            task.cancel()
        server.close()

    _run(test)


def test_everything_ends_with_the_session() -> None:
    async def test(port: Port) -> None:
        server, number = await _echo_server()
        link = port.link()
        running = asyncio.create_task(link.run(), name="link")
        await link.connected()
        caller = _dial(link, "127.0.0.1", number)
        assert await caller.outcome is None
        port.live.update({})
        with pytest.raises(LinkRefused):
            await running
        assert await caller.closed is not None
        server.close()

    _run(test)


def test_a_stream_ends_with_its_certificate() -> None:
    async def test(port: Port) -> None:
        channel = port.channel(SESSION, life=dt.timedelta(seconds=3))  # its end is cut to whole seconds
        watching: Any = channel.unary_stream(
            "/tpctl.manager.v1.Manager/WatchCluster",
            request_serializer=manager_pb2.WatchClusterRequest.SerializeToString,
        )(manager_pb2.WatchClusterRequest())
        assert await watching.read()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching.read()
        assert "expired" in (ended.value.details() or "")
        await channel.close()

    _run(test)
