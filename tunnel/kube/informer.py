"""A local copy of a collection, kept by list and watch (Kubernetes API concepts: efficient detection of changes)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tunnel.kube.api import Api, Object
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.pace import Pace

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""


class Informer:
    """`items` follows the collection at `path`; `on_change(key, object | None)` is called after each change.

    Run `run()` as a task of the owner. `synced` is set after the first list. A failing API server is retried for
    ever with pauses up to 2 s; what was known stays. 403 and 404 are logged once and retried slowly.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        on_change: Callable[[Key, Object | None], None] | None = None,
        **params: str,
    ) -> None:
        self._api = api
        self._path = path
        self._params = params
        self._on_change = on_change
        self.items: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self.healthy = False
        """Whether a list or watch is current; at most `WATCH_SILENCE` after the server went away it is not."""

    async def run(self) -> None:
        """List and watch until cancelled."""
        version = ""
        pace = Pace()
        complained = False
        while True:
            try:
                if not version:
                    version = await self._list()
                version = await self._watch(version)
                complained = False
            except KubeError as error:
                version = ""
                if not (isinstance(error, ApiError) and error.gone):
                    self.healthy = False
                    if not complained:
                        log.warning("cannot watch %s: %s", self._path, error)
                        complained = True
            await pace.rest()

    async def _list(self) -> str:
        answer = await self._api.list(self._path, **self._params)
        fresh = {key_of(item): item for item in answer.get("items") or []}
        old, self.items = self.items, fresh
        self.healthy = True
        self.synced.set()
        for key in old.keys() - fresh.keys():
            self._tell(key, None)
        for key, item in fresh.items():
            if key not in old or _version(old[key]) != _version(item):
                self._tell(key, item)
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        async for kind, item in self._api.watch(self._path, resource_version=version, params=self._params):
            self.healthy = True
            version = _version(item) or version
            if kind == "BOOKMARK":
                continue
            key = key_of(item)
            if kind == "DELETED":
                self.items.pop(key, None)
                self._tell(key, None)
            else:
                self.items[key] = item
                self._tell(key, item)
        return version

    def _tell(self, key: Key, item: Object | None) -> None:
        if self._on_change is not None:
            self._on_change(key, item)


def key_of(item: Object) -> Key:
    """(namespace, name) of an object."""
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _version(item: Object) -> str:
    return str((item.get("metadata") or {}).get("resourceVersion") or "")
