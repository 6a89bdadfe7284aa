"""An API server in small, with a manager that signs every session, and port-forwards that lead nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from tpd.session.carriers.channel import V4Channel
from tpd.session.kube import paths
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials
from tunnel.testing.certificates import FakeAuthority

Object = dict[str, Any]
MANAGER = "tpctl-system"
SESSIONS = paths.sessions(MANAGER)
_COLLECTIONS = {"namespaces", "pods", "services", "sessions", "engagements", *paths.WORKLOADS.values()}


class Cluster:
    """`objects` by path. `on_create(path, object)` may change what is stored; `gate` holds creations back."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, Object] = {}
        self.log: list[str] = []
        """`METHOD PATH` of every request but watches."""
        self.forwards: list[web.WebSocketResponse] = []
        """Those that are open."""
        self.forwarded: list[str] = []
        """The pods of all port-forwards so far."""
        self.forward_error = b""
        """What port-forwards end with, at once."""
        self.on_create: Callable[[str, Object], None] = lambda path, item: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        """A creation stands at the gate."""
        self.refuse: dict[str, type[web.HTTPException]] = {}
        """What to answer instead, by `METHOD PATH`."""
        self._authority = FakeAuthority()
        self._changed = asyncio.Event()
        self._history: list[tuple[str, str, Object]] = []
        self.add_manager("manager-1")
        self.objects[f"{paths.NAMESPACES}/demo"] = {"metadata": {"name": "demo"}}

    def add_manager(self, name: str) -> None:
        """A pod of the traffic-manager that is ready."""
        self.add_pod(MANAGER, name)

    def add_pod(self, namespace: str, name: str) -> None:
        """Any pod that is ready."""
        pod = {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        self.objects[paths.pods(namespace, name)] = pod

    def set_status(self, path: str, **status: Any) -> None:
        """Change an object's status, as the manager does."""
        self.put(path, {**self.objects[path], "status": status})

    def below(self, collection: str) -> list[Object]:
        """The objects of a collection, or of all namespaces."""
        kind = collection.rpartition("/")[2]
        everywhere = "/namespaces/" not in collection and kind != "namespaces"
        return [
            item
            for path, item in self.objects.items()
            if path.rpartition("/")[0] == collection or (everywhere and path.split("/")[-2] == kind)
        ]

    def put(self, path: str, item: Object, kind: str = "MODIFIED") -> None:
        """Store an object and tell who watches."""
        self._history.append((kind, path, item))
        item["metadata"]["resourceVersion"] = str(len(self._history))
        self.objects[path] = item
        if kind == "DELETED":
            del self.objects[path]
        self._tell()

    def delete(self, path: str) -> None:
        """Remove an object and tell who watches."""
        self.put(path, self.objects[path], "DELETED")

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something about objects or forwards."""
        while not holds():
            await self._changed.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.endswith("/portforward"):
            return await self._forward(request)
        if request.query.get("watch"):
            return await self._watch(request)
        self.log.append(f"{request.method} {path}")
        if (refusal := self.refuse.get(f"{request.method} {path}")) is not None:
            raise refusal()
        if request.method == "POST":
            return web.json_response(await self._create(path, await request.json()), status=201)
        if request.method == "GET" and path.rpartition("/")[2] in _COLLECTIONS:
            return web.json_response({"items": self.below(path), "metadata": {}})
        if path not in self.objects:
            raise web.HTTPNotFound
        if request.method == "DELETE":
            item = self.objects[path]
            self.delete(path)
            return web.json_response(item)
        return web.json_response(self.objects[path])

    async def _create(self, path: str, item: Object) -> Object:
        if path == paths.REVIEW:
            return {"status": {"userInfo": {"username": "ann"}}}
        self.asked.set()
        await self.gate.wait()
        name = item["metadata"]["name"]
        item["metadata"]["uid"] = f"uid-{name}"
        if path == SESSIONS:
            who = Identity(Kind.SESSION, item["metadata"]["uid"])
            item["status"] = {
                "phase": "Active",
                "certificate": self._authority.sign(who, item["spec"]["publicKey"].encode()).decode(),
                "root": self._authority.root_pem.decode(),
                "leaseSeconds": 60,
            }
        self.on_create(path, item)
        self.put(f"{path}/{name}", item, "ADDED")
        return item

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        wanted = f"{request.path}/{request.query.get('fieldSelector', '').removeprefix('metadata.name=')}"
        at = int(request.query.get("resourceVersion") or 0)
        with suppress(ConnectionError):
            while True:
                changed = self._changed
                for kind, path, item in self._history[at:]:
                    if path == wanted:
                        await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
                at = len(self._history)
                await changed.wait()
        return response

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        """Speaks v4 and says nothing, so that gRPC's handshake gets no answer; or the error."""
        socket = web.WebSocketResponse(protocols=[V4Channel.protocol])
        await socket.prepare(request)
        self.forwarded.append(request.path.split("/")[-2])
        self.forwards.append(socket)
        self._tell()
        try:
            if self.forward_error:
                await socket.send_bytes(b"\0\0\0")
                await socket.send_bytes(b"\1\0\0" + self.forward_error)
            async for _ in socket:
                pass
        finally:
            self.forwards.remove(socket)
            self._tell()
        return socket

    def api(self) -> Api:
        """An `Api` to it."""
        return Api(Credentials(context="test", namespace="demo", server=self.url))

    def kubeconfig(self, folder: Path) -> str:
        """A file that leads to it."""
        file = folder / "kubeconfig"
        document = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "here", "namespace": "demo"}}],
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
        }
        file.write_text(json.dumps(document))
        return str(file)


@asynccontextmanager
async def cluster() -> AsyncIterator[Cluster]:
    """It serves as long as the context is open."""
    made = Cluster()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.05, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()
