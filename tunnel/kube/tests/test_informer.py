"""A local copy of a collection, from an API server that behaves oddly."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tunnel.kube.api import Api
from tunnel.kube.informer import Informer
from tunnel.testing.api_server import serving, watch_of

GONE = ("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
THING = {"metadata": {"namespace": "n", "name": "a", "resourceVersion": "2"}}


@pytest.mark.parametrize("events", [(), (GONE,), (("ADDED", THING),)], ids=["empty", "gone", "an event"])
def test_watches_that_end_at_once_make_no_storm(events: tuple[tuple[str, dict[str, object]], ...]) -> None:
    async def body() -> None:
        asked = 0

        async def handler(request: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            if "watch" in request.query:
                return await watch_of(request, *events)
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

        async with serving(handler) as credentials, Api(credentials) as api:
            informer = Informer(api, "/things")
            task = asyncio.create_task(informer.run(), name="informer")
            await asyncio.sleep(0.7)
            task.cancel()
            assert informer.healthy
            assert informer.items == ({("n", "a"): THING} if ("ADDED", THING) in events else {})
            assert 2 < asked < 14

    asyncio.run(body())


def test_a_watch_that_lived_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.kube.pace._LIVED", 0.05)

    async def body() -> None:
        asked = 0

        async def handler(request: web.Request) -> web.StreamResponse:
            nonlocal asked
            asked += 1
            return await watch_of(request, lives=0.06)

        async with serving(handler) as credentials, Api(credentials) as api:
            informer = Informer(api, "/things")
            monkeypatch.setattr(informer, "_list", lambda: _version())
            task = asyncio.create_task(informer.run(), name="informer")
            await asyncio.sleep(1.0)
            task.cancel()
            assert asked >= 5

    asyncio.run(body())


async def _version() -> str:
    return "1"
