"""An HTTP server in the API server's place: one handler answers everything."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tunnel.identity import Identity, Kind
from tunnel.kube.kubeconfig import Credentials
from tunnel.testing.certificates import FakeAuthority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(
    handler: Handler, folder: Path | None = None, authority: FakeAuthority | None = None
) -> AsyncIterator[Credentials]:
    """The way to `handler`; with a folder for its key over TLS, which asks for certificates of `authority`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    known: dict[str, Any] = {"context": "test", "namespace": "default"}
    context = None
    if folder is not None:
        authority = authority or FakeAuthority()
        who = Identity(Kind.MANAGER, "server")
        holder = authority.issue(who)
        (folder / "server.pem").write_bytes(holder.key_pem + holder.chain_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        context.load_verify_locations(cadata=authority.root_pem.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        known |= {"ca": authority.root_pem, "server_name": who.dns}
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    scheme = "http" if context is None else "https"
    try:
        yield Credentials(server=f"{scheme}://127.0.0.1:{runner.addresses[0][1]}", **known)
    finally:
        await runner.cleanup()


async def watch_of(request: web.Request, *events: tuple[str, dict[str, Any]], lives: float = 0.0) -> web.StreamResponse:
    """Answer a watch: these (type, object), and its end after `lives` seconds."""
    response = web.StreamResponse()
    await response.prepare(request)
    for kind, item in events:
        await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
    await asyncio.sleep(lives)
    return response
