"""/healthz and /readyz, plain HTTP, for the kubelet."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web


def application(waiting_for: Callable[[], list[str]]) -> web.Application:
    """`waiting_for`: what is missing until the manager is ready; empty when it is."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = waiting_for()
        if missing:
            return web.Response(status=503, text=f"waiting for {', '.join(missing)}\n")
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app
