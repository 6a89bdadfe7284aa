"""A small API server for tests: objects by path, patches under their resourceVersion, and refusals as told."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from tunnel.kube.api import Api, Object
from tunnel.testing.api_server import serving


class FakeApiServer:
    """`objects` by path without subresource; `asked` is every request as (method, path)."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.asked: list[tuple[str, str]] = []
        self.refusals: dict[tuple[str, str], Object] = {}
        """(method, path) → the Status that answers it."""
        self._version = 100

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Api]:
        """A client of it, for as long as it serves."""
        async with serving(self._answer) as credentials, Api(credentials) as api:
            yield api

    def refuse(self, method: str, path: str, code: int, message: str = "no", **details: Any) -> None:
        """From now on such requests are answered by this Status."""
        status = {"kind": "Status", "code": code, "reason": "Refused", "message": message, "details": details}
        self.refusals[method, path] = status

    def put(self, path: str, item: Object) -> Object:
        """Keep an object under a new resourceVersion; what is kept."""
        self._version += 1
        kept = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        self.objects[path] = kept
        return kept

    async def until_asked(self, method: str, path: str, times: int = 1) -> None:
        """Wait for such a request."""
        async with asyncio.timeout(5):
            while self.asked.count((method, path)) < times:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.raw_path.partition("?")[0]
        self.asked.append((request.method, path))
        refusal = self.refusals.get((request.method, path))
        if refusal is not None:
            return web.json_response(refusal, status=refusal["code"])
        if request.method == "POST":
            return web.json_response(await request.json(), status=201)
        name = path.removesuffix("/status")
        item = self.objects.get(name)
        if item is None:
            return self._status(404, f"{name} not found")
        if request.method == "PATCH":
            return await self._patch(name, item, await request.json())
        if request.method == "DELETE":
            wanted = (await request.json()).get("preconditions", {})
            if any(item["metadata"][key] != value for key, value in wanted.items()):
                return self._status(409, "the preconditions do not hold")
            del self.objects[name]
        return web.json_response(item)

    async def _patch(self, path: str, item: Object, patch: Object) -> web.Response:
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, item["metadata"]["resourceVersion"]):
            return self._status(409, "the object has been modified")
        return web.json_response(self.put(path, _merged(copy.deepcopy(item), patch)))

    @staticmethod
    def _status(code: int, message: str) -> web.Response:
        return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def _merged(target: Object, patch: Object) -> Object:
    """RFC 7396, without deletions."""
    for key, value in patch.items():
        old = target.get(key)
        target[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return target
