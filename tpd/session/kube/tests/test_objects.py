"""Following our own objects, against an API server that a handler plays."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest
from aiohttp import web

from tpd.session.identity import Identity
from tpd.session.kube.engagement_object import EngagementObject
from tpd.session.kube.session_object import SessionObject, SessionSpec
from tunnel.kube.api import Api
from tunnel.testing.api_server import serving, watch_of

SPEC = SessionSpec("alice", "laptop", "machine", "1", "shop", "dev")


def session(api: Api) -> SessionObject:
    return SessionObject(api, "tpctl-system", SPEC, Identity(b"key", "public"))


def item(version: int, lease: int = 300, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "x", "uid": "1", "resourceVersion": str(version)},
        "status": {"phase": "Active", "leaseSeconds": lease, **status},
    }


SIGNED: dict[str, Any] = {"certificate": "chain", "root": "root"}


class Server:
    """The object is always there; every watch ends at once, after showing it if it has `events`."""

    def __init__(self, *events: tuple[str, dict[str, Any]]) -> None:
        self.events = events
        self.asked = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if "watch" in request.query:
            return await watch_of(request, *self.events)
        return web.json_response(item(1))


async def follow_session(api: Api) -> None:
    await session(api).keep()


async def await_certificate(api: Api) -> None:
    await session(api).create()


async def follow_engagement(api: Api) -> None:
    engagement = EngagementObject(api, "shop", "Deployment", "orders", "app")
    await engagement.create("alice", session(api), [])
    await engagement.follow(lambda _: None)


GONE = ("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})


@pytest.mark.parametrize("events", [(), (("MODIFIED", item(2)),), (GONE,)], ids=["empty", "an event", "gone"])
@pytest.mark.parametrize("follower", [follow_session, await_certificate, follow_engagement])
def test_watches_that_end_at_once_make_no_storm(follower: Any, events: tuple[Any, ...]) -> None:
    if follower is await_certificate and events == (GONE,):
        return  # that ends the attempt

    async def body() -> None:
        server = Server(*events)
        async with serving(server) as credentials, Api(credentials) as api:
            coroutine: Coroutine[Any, Any, None] = follower(api)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(coroutine, 0.7)
            assert 2 < server.asked < 16

    asyncio.run(body())


def test_a_shorter_lease_counts_at_once() -> None:
    async def body() -> None:
        renewed = asyncio.Event()

        async def handler(request: web.Request) -> web.StreamResponse:
            if request.method == "PATCH":
                renewed.set()
                return web.json_response(item(4, 60))
            if "watch" not in request.query:
                return web.json_response(item(1), status=201)
            if not request.query["resourceVersion"]:
                return await watch_of(request, ("MODIFIED", item(2, **SIGNED)))
            return await watch_of(request, ("MODIFIED", item(3, 60, **SIGNED)), lives=30)

        async with serving(handler) as credentials, Api(credentials) as api:
            tested = session(api)
            await tested.create()
            assert tested.lease_seconds == 300
            keep = asyncio.create_task(tested.keep(), name="keep")
            await asyncio.wait_for(renewed.wait(), 5)
            assert tested.lease_seconds == 60
            keep.cancel()
            await asyncio.wait([keep])

    asyncio.run(body())
