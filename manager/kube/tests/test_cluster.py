"""What laptops are told about the cluster, against an API server that is slow to tell the manager."""

from __future__ import annotations

import asyncio

import pytest

from manager.config import Config
from manager.kube import cluster, paths
from manager.kube.cluster import ClusterView
from manager.kube.tests.apiserver import FakeApiServer
from manager.state.tests.samples import NAMESPACE
from tunnel.kube.informer import Informer

SERVICE = paths.services(NAMESPACE, "traffic-manager")


def test_our_own_address_is_asked_for_until_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_RETRY", 0.01)
    server = FakeApiServer()
    server.put(SERVICE, {"metadata": {}, "spec": {"clusterIP": "10.96.0.7"}})
    server.refuse("GET", SERVICE, 500)

    async def run() -> None:
        async with server.serving() as api:
            pods = Informer(api, paths.PODS)
            view = ClusterView(api, Config("pod", "uid", NAMESPACE), pods, "cluster.local")
            for informer in (*view.informers, pods):
                informer.synced.set()
            running = asyncio.create_task(view.run(), name="view")
            await server.until_asked("GET", SERVICE, 3)
            assert not view.known.is_set()
            server.refusals.clear()
            async with asyncio.timeout(5):
                await view.known.wait()
            assert str(view.own_service) == "10.96.0.7"
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(run())
