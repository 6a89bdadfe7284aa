"""The session controller against an HTTP server that takes statuses as the API server does, as slowly as asked."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manager import pki
from manager.config import Config
from manager.kube.probe import PolicyProbe
from manager.kube.sessions import SessionController
from manager.kube.tests.test_probe import POLICY, ApiServer
from manager.registry import LiveSessions
from manager.state.tests.samples import NAMESPACE
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials


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

    async def write(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
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
        app = web.Application()
        app.router.add_get("/apis/admissionregistration.k8s.io/v1/{kind}/{name}", server.policy)
        app.router.add_post("/apis/tpctl.io/v1alpha1/namespaces/{namespace}/{kind}", server.create)
        app.router.add_patch("/apis/tpctl.io/v1alpha1/namespaces/{namespace}/sessions/{name}/status", server.write)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with Api(Credentials("test", "default", f"http://127.0.0.1:{runner.addresses[0][1]}")) as api:
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
                async with asyncio.timeout(10):
                    await server.writing.wait()
                    assert set(live.all()) == {"uid-first"}
                    server.go.set()
                    assert await live.await_live("uid-second", 5) is not None
                running.cancel()
                await asyncio.wait([running])
        finally:
            server.go.set()
            await runner.cleanup()

    asyncio.run(body())
