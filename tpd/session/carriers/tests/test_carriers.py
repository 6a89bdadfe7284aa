"""A real gRPC stream through a real WebSocket port-forward, and how it ends."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from tpd.session.carriers.bridge import Bridge, private_folder
from tpd.session.carriers.channel import SpdyChannel, V4Channel
from tpd.session.carriers.peer import PeerChannel
from tpd.session.carriers.port_forward import PortForward
from tpd.session.carriers.tests.portforward import api_with_portforward
from tpd.session.identity import new_identity
from tunnel.aio.byte_stream import ByteStream, StreamError
from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, MESSAGE_OPTIONS, connect_stream, tunnel_rpc_handler
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError
from tunnel.testing.certificates import FakeAuthority


async def echo(stream: ByteStream, context: object) -> None:
    while (message := await stream.read()) is not None:
        await stream.write(message)


@asynccontextmanager
async def grpc_echo() -> AsyncIterator[int]:
    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    server.add_generic_rpc_handlers((tunnel_rpc_handler(echo),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@asynccontextmanager
async def bridged(api: Api) -> AsyncIterator[tuple[ByteStream, Bridge]]:
    bridge = Bridge(await PortForward.open(api, "ns", "pod", 8443))
    bridge.listen()
    pump = asyncio.get_running_loop().create_task(bridge.run(), name="bridge")
    channel = grpc.aio.insecure_channel(bridge.address, options=CHANNEL_OPTIONS)
    stream = connect_stream(channel)
    try:
        yield stream, bridge
    finally:
        await stream.close()
        pump.cancel()
        await asyncio.wait([pump], timeout=2)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


both_ways = pytest.mark.parametrize("protocol", [SpdyChannel.protocol, V4Channel.protocol])


@both_ways
def test_messages_of_all_sizes_come_back(protocol: str) -> None:
    async def test() -> None:
        async with grpc_echo() as port, api_with_portforward(port, protocol) as (api, _), bridged(api) as (stream, _):
            for size in (1, 1000, 65536, 1 << 20):
                message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
                await stream.write(message)
                assert await stream.read() == message

    run(test)


@both_ways
def test_a_backlog_leaves_in_large_messages(protocol: str) -> None:
    async def test() -> None:
        async with (
            grpc_echo() as port,
            api_with_portforward(port, protocol) as (api, forward),
            bridged(api) as (stream, _),
        ):

            async def write() -> None:
                for _ in range(32):
                    await stream.write(bytes(256 * 1024))

            writing = asyncio.get_running_loop().create_task(write(), name="write")
            for _ in range(32):
                assert await stream.read() == bytes(256 * 1024)
            await writing
            assert sum(forward.messages) / len(forward.messages) > 32 * 1024

    run(test)


@both_ways
def test_a_dropped_forward_ends_the_stream(protocol: str) -> None:
    async def test() -> None:
        async with (
            grpc_echo() as port,
            api_with_portforward(port, protocol) as (api, forward),
            bridged(api) as (stream, bridge),
        ):
            await stream.write(b"hello")
            assert await stream.read() == b"hello"
            await forward.drop()
            with pytest.raises(StreamError):
                await stream.read()
            assert "closed" in await bridge.ended

    run(test)


@both_ways
def test_a_text_on_the_error_channel_fails_the_carrier_with_it(protocol: str) -> None:
    async def test() -> None:
        async with api_with_portforward(1, protocol) as (api, forward):
            forward.error = b"lost connection to pod\n"
            async with bridged(api) as (stream, bridge):
                with pytest.raises(StreamError):
                    await stream.read()
                assert await bridge.ended == "lost connection to pod"

    run(test)


@both_ways
@pytest.mark.parametrize("bulk", [False, True])
def test_each_lane_takes_the_other_protocol_where_its_own_is_refused(protocol: str, bulk: bool) -> None:
    async def test() -> None:
        async with api_with_portforward(1, protocol) as (api, _):
            forward = await PortForward.open(api, "ns", "pod", 8443, bulk=bulk)
            forward.abort()

    run(test)


def test_a_refused_upgrade_is_an_api_error() -> None:
    async def test() -> None:
        async with api_with_portforward(1) as (api, _):
            with pytest.raises(ApiError) as caught:
                await PortForward.open(api, "no/such", "pod", 8443)
            assert caught.value.not_found

    run(test)


def test_nobody_else_can_use_the_socket() -> None:
    """The socket takes one connection, of this process, and is gone then."""

    async def test() -> None:
        async with grpc_echo() as port, api_with_portforward(port) as (api, _), bridged(api) as (stream, bridge):
            path = bridge.address.removeprefix("unix:")
            stranger = await asyncio.create_subprocess_exec(
                "/usr/bin/env",
                "python3",
                "-c",
                f"import socket; s=socket.socket(socket.AF_UNIX); s.connect({path!r}); print(s.recv(1))",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            said, _ = await stranger.communicate()
            assert said in (b"b''\n", b""), "ended without a byte, or gone already"
            await stream.write(b"mine")
            assert await stream.read() == b"mine"
            with pytest.raises(OSError, match="No such file"):
                await asyncio.open_unix_connection(path)

    run(test)


def test_neither_a_long_nor_a_missing_folder_for_temporary_files_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    for folder in (long, tmp_path / "missing"):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))  # what $TMPDIR said when the worker began
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        test_messages_of_all_sizes_come_back(V4Channel.protocol)
        assert not folder.exists() or list(folder.iterdir()) == []


def test_the_socket_lies_in_the_user_s_own_folder_where_there_is_one(tmp_path: Path) -> None:
    made = Path(private_folder({"XDG_RUNTIME_DIR": str(tmp_path)}))
    assert made.parent == tmp_path
    assert made.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_of_a_socket_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with api_with_portforward(1) as (api, _):
            carrier = await PortForward.open(api, "ns", "pod", 8443)
            bridge = Bridge(carrier)
            Path(bridge.address.removeprefix("unix:")).mkdir()
            with pytest.raises(OSError, match="in use"):
                bridge.listen()
            assert list(tmp_path.iterdir()) == []
            carrier.abort()

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run(test)


def test_a_channel_that_is_closed_before_anything_ran_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with api_with_portforward(1) as (api, _):
            authority, key = FakeAuthority(), new_identity()
            chain = authority.sign(Identity(Kind.SESSION, "uid"), key.public_key.encode())
            signed = key.signed("uid", chain.decode(), authority.root_pem.decode())
            channel = PeerChannel(await PortForward.open(api, "ns", "pod", 8443), "peer", signed)
            await channel.close()
            assert await channel.ended == "closed"
            assert list(tmp_path.iterdir()) == []

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run(test)
