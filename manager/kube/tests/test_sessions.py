"""The session controller against an HTTP server that takes statuses as the API server does, as slowly as asked."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manager import pki
from manager.config import Config
from manager.kube import paths
from manager.kube.probe import PolicyProbe
from manager.kube.sessions import SessionController
from manager.kube.tests.apiserver import FakeApiServer
from manager.kube.tests.test_probe import POLICY, ApiServer
from manager.registry import LiveSessions
from manager.state.model import RENEWED, format_time
from manager.state.tests.samples import NAMESPACE
from tunnel.kube.api import Api
from tunnel.testing.api_server import serving


def _pending(name: str) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "metadata": {
            "uid": f"uid-{name}",
            "namespace": NAMESPACE,
            "name": name,
            "resourceVersion": "1",
            "creationTimestamp": "2031-01-01T00:00:00Z",
        },
        "spec": {"user": "alice", "client": {"host": "laptop"}, "publicKey": public.decode(), "namespace": "shop"},
    }


class Sessions(ApiServer):
    """Also keeps the statuses of sessions; writing the one that is held takes until `go`."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.items = {name: _pending(name) for name in ("first", "second")}
        self.held = held
        self.go = asyncio.Event()
        self.writing = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        return await (self.write(request) if request.method == "PATCH" else super().answer(request))

    async def write(self, request: web.Request) -> web.Response:
        """Of a path that ends in NAME/status."""
        name = request.path.split("/")[-2]
        if name == self.held:
            self.writing.set()
            await self.go.wait()
        item = self.items[name]
        item = {
            **item,
            "metadata": {**item["metadata"], "resourceVersion": "2"},
            "status": (await request.json())["status"],
        }
        return web.json_response(item)


def test_a_session_lives_as_soon_as_it_has_its_certificate_whoever_else_waits() -> None:
    async def body() -> None:
        server = Sessions(held="second")
        async with serving(server.answer) as credentials, Api(credentials) as api:
            config = Config("pod", "uid", NAMESPACE, policy=POLICY)
            now = dt.datetime.now(dt.UTC)
            authority = pki.Authority(pki.make_root(NAMESPACE, now), now)
            live = LiveSessions()
            probe = PolicyProbe(api, config, lambda: None)
            controller = SessionController(api, config, authority, probe, live, lambda: None)
            for name, item in server.items.items():
                controller.informer.items[NAMESPACE, name] = item
            controller.informer.synced.set()
            running = asyncio.create_task(controller.run(), name="controller")
            try:
                async with asyncio.timeout(10):
                    await server.writing.wait()
                    assert set(live.all()) == {"uid-first"}
                    server.go.set()
                    assert await live.await_live("uid-second", 5) is not None
            finally:
                server.go.set()
                running.cancel()
                await asyncio.wait([running])

    asyncio.run(body())


FIRST = paths.sessions(NAMESPACE, "first")
LEASE = 0.3


async def _with_a_dead_watch(
    server: FakeApiServer, then: Callable[[SessionController, LiveSessions], Awaitable[None]]
) -> None:
    """A controller that saw session first once, and to which its watch says nothing any more."""
    async with server.serving() as api:
        config = Config("pod", "uid", NAMESPACE, policy=POLICY, lease_seconds=LEASE)
        now = dt.datetime.now(dt.UTC)
        authority = pki.Authority(pki.make_root(NAMESPACE, now), now)
        expires = format_time(now.timestamp() + pki.SESSION_LIFE.total_seconds())
        status = {"phase": "Active", "root": authority.root_pem.decode(), "managerPodUid": "uid", "expiresAt": expires}
        live = LiveSessions()
        controller = SessionController(
            api, config, authority, PolicyProbe(api, config, lambda: None), live, lambda: None
        )
        controller.informer.items[NAMESPACE, "first"] = server.put(FIRST, {**_pending("first"), "status": status})
        controller.informer.healthy = True
        controller.informer.synced.set()
        running = asyncio.create_task(controller.run(), name="controller")
        try:
            async with asyncio.timeout(10):
                await then(controller, live)
        finally:
            running.cancel()
            await asyncio.wait([running])


def test_a_watch_that_says_nothing_ends_no_session_that_renews() -> None:
    server = FakeApiServer()

    async def then(_: SessionController, live: LiveSessions) -> None:
        for number in range(3):
            item = server.objects[FIRST]
            server.put(FIRST, {**item, "metadata": {**item["metadata"], "annotations": {RENEWED: str(number)}}})
            await server.until_asked("GET", FIRST, number + 1)
            assert set(live.all()) == {"uid-first"}
        assert server.objects[FIRST]["status"]["phase"] == "Active"

    asyncio.run(_with_a_dead_watch(server, then))


def test_a_session_lives_until_its_end_is_written() -> None:
    server = FakeApiServer()
    server.refuse("PATCH", f"{FIRST}/status", 500)

    async def then(_: SessionController, live: LiveSessions) -> None:
        await server.until_asked("PATCH", f"{FIRST}/status", 2)
        assert set(live.all()) == {"uid-first"}
        server.refusals.clear()
        with live.stream("uid-first") as ended:
            await ended.wait()
        assert server.objects[FIRST]["status"]["phase"] == "Expired"

    asyncio.run(_with_a_dead_watch(server, then))


def test_a_session_that_is_gone_ends_although_the_watch_does_not_say_so() -> None:
    server = FakeApiServer()

    async def then(controller: SessionController, live: LiveSessions) -> None:
        await asyncio.sleep(0)
        del server.objects[FIRST]
        with live.stream("uid-first") as ended:
            await ended.wait()
        assert controller.informer.items == {}

    asyncio.run(_with_a_dead_watch(server, then))
