"""An API server that can only be reached through an HTTP proxy: requests and carriers both take it."""

from __future__ import annotations

import subprocess

import pytest

from integration.scenarios.conftest import UserFactory

pytestmark = pytest.mark.cluster

# CONNECT (RFC 9110, section 9.3.6) and nothing else; prints what it is asked for.
_PROXY = """
import asyncio, contextlib
async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    method, target, _ = head.decode().split(" ", 2)
    print(method, target, flush=True)
    host, _, port = target.rpartition(":")
    far_reader, far_writer = await asyncio.open_connection(host, int(port))
    writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 3128)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def test_everything_takes_the_proxy(people: UserFactory, demo: str) -> None:
    user = people()
    user.start_daemon()
    with user.laptop.popen(["python3", "-I", "-c", _PROXY], stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        user.ok("tpctl", "connect", "-n", demo, env={"HTTPS_PROXY": "http://127.0.0.1:3128"}, timeout=60)
        assert user.curl("http://echo/healthz").strip() == "ok"
        user.tpctl("quit")
        proxy.kill()
        asked = proxy.stdout.read().splitlines()
    server = user.laptop.api_server.removeprefix("https://")
    assert set(asked) == {f"CONNECT {server}"}
    assert len(asked) >= 2  # requests, and a carrier


def test_a_proxy_that_is_away_is_named(people: UserFactory) -> None:
    user = people()
    user.start_daemon()
    done = user.run("tpctl", "connect", env={"HTTPS_PROXY": "http://127.0.0.1:3129"})
    assert done.returncode == 1
    assert "through the proxy http://127.0.0.1:3129" in done.stderr
