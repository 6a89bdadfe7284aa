"""Renewable TLS credentials: the newest is shown, and a storm of handshakes harms nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import grpc.aio

from tunnel.aio.server_credentials import Material, renewable_credentials
from tunnel.identity import Identity, Kind
from tunnel.testing.certificates import FakeAuthority

MANAGER = Identity(Kind.MANAGER, "test")

# A server in a process of its own, because the failure would be a crash; it is asked to end by its standard input.
_SERVER = """
import asyncio, sys
import grpc.aio
from tunnel.aio.server_credentials import renewable_credentials
from tunnel.identity import Identity, Kind
from tunnel.testing.certificates import FakeAuthority

async def main():
    authority = FakeAuthority()
    own = authority.issue(Identity(Kind.MANAGER, "test"))
    server = grpc.aio.server()
    credentials = renewable_credentials(lambda: (own.key_pem, own.chain_pem, authority.root_pem), require_client=True)
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)

asyncio.run(main())
"""


async def _shown(authority: FakeAuthority, port: int) -> bool:
    """Whether a handshake succeeds with a server that this authority certified."""
    credentials = grpc.ssl_channel_credentials(authority.root_pem)
    options = [("grpc.ssl_target_name_override", MANAGER.dns), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        call: Any = channel.unary_unary("/none/none")
        try:
            await call(b"")
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
    return True


async def test_the_newest_certificate_is_shown() -> None:
    old, new = FakeAuthority(), FakeAuthority()
    shown: list[Material] = []
    for authority in (old, new):
        holder = authority.issue(MANAGER)
        shown.append((holder.key_pem, holder.chain_pem, None))
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", renewable_credentials(lambda: shown[0], require_client=False))
    await server.start()
    try:
        assert await _shown(old, port)
        assert not await _shown(new, port)
        shown[0] = shown[1]
        assert await _shown(new, port)
        assert not await _shown(old, port)
    finally:
        await server.stop(None)


async def test_a_storm_of_handshakes_harms_nobody() -> None:
    async def broken(port: int, number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            (b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")[number % 2] + bytes(600)
        )
        await asyncio.sleep(0.01 * (number % 3))
        writer.transport.abort()

    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _SERVER), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        for _ in range(8):
            await asyncio.gather(*(broken(port, number) for number in range(200)))
        await asyncio.wait_for(server.communicate(b""), 10)
        assert server.returncode == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
