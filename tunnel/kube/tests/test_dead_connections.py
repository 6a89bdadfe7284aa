"""Connections that have died without a word are noticed, and given up when the way to the server has changed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from aiohttp import web

from tunnel.kube import api as api_module
from tunnel.kube.api import Api
from tunnel.kube.errors import Unreachable
from tunnel.kube.sockets import watchful_socket
from tunnel.testing.api_server import serving, watch_of

BOOKMARK = ("BOOKMARK", {"metadata": {"resourceVersion": "7"}})


async def _seen(api: Api, into: list[str], began: asyncio.Event | None = None) -> None:
    async for kind, _ in api.watch("/things", resource_version="1"):
        into.append(kind)
        if began is not None:
            began.set()


def test_the_kernel_asks_whether_the_server_is_there() -> None:
    with watchful_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT
        assert [made.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [15, 5, 3, 30_000]


def test_the_pools_sockets_are_such(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def factory(info: tuple[object, ...]) -> socket.socket:
        made.append(watchful_socket(info))
        return made[-1]

    monkeypatch.setattr(api_module, "watchful_socket", factory)

    async def body() -> None:
        async with serving(lambda request: watch_of(request, BOOKMARK)) as credentials, Api(credentials) as api:
            await _seen(api, [])

    asyncio.run(body())
    assert len(made) == 1


@pytest.mark.parametrize("events", [(), (BOOKMARK,)])
def test_a_silent_watch_is_unreachable(
    events: tuple[tuple[str, dict[str, object]], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "WATCH_SILENCE", 0.2)

    async def body() -> None:
        seen: list[str] = []
        async with (
            serving(lambda request: watch_of(request, *events, lives=30)) as credentials,
            Api(credentials) as api,
        ):
            with pytest.raises(Unreachable, match="did not answer in time"):
                await asyncio.wait_for(_seen(api, seen), 5)
        assert seen == [kind for kind, _ in events]

    asyncio.run(body())


def test_a_watch_that_is_not_even_answered_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "REQUEST_TIMEOUT", 0.2)

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async def body() -> None:
        async with serving(silent) as credentials, Api(credentials) as api:
            with pytest.raises(Unreachable, match="did not answer in time"):
                await asyncio.wait_for(_seen(api, []), 5)

    asyncio.run(body())


def test_a_fresh_start_ends_watches_and_leaves_idle_connections_alone(tmp_path: Path) -> None:
    async def body() -> None:
        came: list[tuple[str, int]] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            came.append((request.path, request.transport.get_extra_info("peername")[1]))
            if request.path == "/things":
                return await watch_of(request, BOOKMARK, lives=30)
            return web.json_response({})

        async with serving(handler, tmp_path) as credentials, Api(credentials) as api:
            await api.get("/version")
            await api.get("/version")
            began = asyncio.Event()
            watch = asyncio.create_task(_seen(api, [], began), name="watch")
            await asyncio.wait_for(began.wait(), 5)
            await api.get("/version")
            api.start_afresh()
            with pytest.raises(Unreachable):
                await asyncio.wait_for(watch, 5)
            await api.get("/version")
        ports = [port for path, port in came if path == "/version"]
        assert ports[0] == ports[1]
        assert ports[3] not in ports[:3]

    asyncio.run(body())
