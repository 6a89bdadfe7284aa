"""The policy probe against an HTTP server that answers as the API server does with and without the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from manager.config import Config
from manager.kube.probe import FALSE_NAME, PolicyProbe
from tunnel.kube.api import Api
from tunnel.testing.api_server import serving

POLICY = "traffic-manager-identity"


class ApiServer:
    """Creates nothing: it only says whether it would."""

    def __init__(self) -> None:
        self.works = True
        self.changed = "2030-01-01T00:00:00Z"
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        """The handler of everything."""
        return await (self.policy(request) if request.method == "GET" else self.create(request))

    async def policy(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"creationTimestamp": self.changed}})

    async def create(self, request: web.Request) -> web.Response:
        assert request.query["dryRun"] == "All"
        self.asked += 1
        if self.works and (await request.json())["spec"]["user"] == FALSE_NAME:
            message = f"ValidatingAdmissionPolicy '{POLICY}' denied request"
            return web.json_response({"reason": "Forbidden", "code": 403, "message": message}, status=403)
        return web.json_response({"metadata": {"creationTimestamp": "2030-01-01T01:00:00Z"}}, status=201)


def probing(test: Callable[[ApiServer, PolicyProbe, asyncio.Queue[float | None]], Awaitable[None]]) -> None:
    """Run the test with a server, a probe, and what `on_change` has seen."""

    async def run() -> None:
        server = ApiServer()
        async with serving(server.answer) as credentials, Api(credentials) as api:
            seen: asyncio.Queue[float | None] = asyncio.Queue()
            config = Config("pod", "uid", "tpctl-system", policy=POLICY)
            probe = PolicyProbe(api, config, lambda: seen.put_nowait(probe.watch.works_since))
            await test(server, probe, seen)

    asyncio.run(run())


def test_every_change_is_told_whoever_asked() -> None:
    async def test(server: ApiServer, probe: PolicyProbe, seen: asyncio.Queue[float | None]) -> None:
        for server.works in (True, True, False, False, True):
            await probe.confirm()
        begun, stopped, again = (seen.get_nowait() for _ in range(3))
        assert seen.empty()
        assert stopped is None
        assert begun is not None
        assert again is not None
        assert again > begun  # although the policy says that it did not change

    probing(test)


def test_it_looks_again_soon_after_somebody_saw_a_false_name_let_in() -> None:
    async def test(server: ApiServer, probe: PolicyProbe, seen: asyncio.Queue[float | None]) -> None:
        running = asyncio.create_task(probe.run(), name="probe")
        await probe.works.wait()
        server.works = False
        await probe.confirm()
        server.works, asked = True, server.asked
        async with asyncio.timeout(5):
            assert [await seen.get() for _ in range(3)][1] is None
        assert server.asked > asked
        running.cancel()
        await asyncio.wait([running])

    probing(test)
