"""What the host is asked for when it fails, and when the API server has another address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tpd.session import connection
from tpd.session.connection import Connection
from tpd.session.control import HostRefused
from tpd.session.settings import resolve
from tunnel.aio.tasks import Tasks
from tunnel.kube.kubeconfig import Credentials
from tunnel.proto import daemon_pb2, manager_pb2
from tunnel.testing.device import device_pair


class Host:
    """tpd: refuses `refusals` configurations, then applies all."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.applied: list[daemon_pb2.HostConfig] = []
        self.news = asyncio.Event()

    async def configure_host(self, config: daemon_pb2.HostConfig) -> daemon_pb2.HostReply:
        if self.refusals:
            self.refusals -= 1
            raise HostRefused("busy")
        self.applied.append(config)
        self.news.set()
        return daemon_pb2.HostReply()


@asynccontextmanager
async def connected(host: Host) -> AsyncIterator[Connection]:
    ours, theirs = device_pair()
    tasks = Tasks("test")
    made = Connection(daemon_pb2.WorkerStart(dns_address="10.0.0.1"), ours, cast(Any, host), tasks)
    made.settings = resolve(daemon_pb2.Connect(), Credentials("test", "demo", "https://api"))
    made._on_cluster(manager_pb2.Cluster(service_subnets=["10.96.0.0/16"]))
    made._remember(["192.0.2.1"])
    try:
        async with asyncio.timeout(10):
            yield made
    finally:
        await made.close()
        ours.close()
        theirs.close()


def test_a_change_of_the_host_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HOST_PAUSE", 0.02)

    async def run() -> None:
        host = Host(refusals=3)
        async with connected(host) as tested:
            tested._tasks.spawn(tested._follow_cluster(), name="follow-cluster")
            await host.news.wait()
            assert list(host.applied[0].subnets) == ["10.96.0.0/16"]

    asyncio.run(run())


def test_a_new_address_of_the_api_server_is_bypassed_before_it_is_dialled() -> None:
    async def run() -> None:
        host = Host()
        async with connected(host) as tested:
            await tested._bypass_too(["192.0.2.7"])
            assert host.applied == [], "connect itself asks for the first ones"
            await tested._configure_host()
            await tested._bypass_too(["192.0.2.7"])
            assert len(host.applied) == 1
            await tested._bypass_too(["192.0.2.8", "2001:db8::1"])
            assert list(host.applied[1].bypass) == ["192.0.2.1", "192.0.2.7", "192.0.2.8", "2001:db8::1"]

    asyncio.run(run())


def test_the_newest_addresses_are_remembered() -> None:
    async def run() -> None:
        async with connected(Host()) as tested:
            for number in range(200):
                assert tested._remember([f"192.0.2.{number}"]) is (number != 1)
            assert tested._bypass[-1] == "192.0.2.199"
            assert len(tested._bypass) == connection._MOST_BYPASSED

    asyncio.run(run())


def test_names_that_the_cluster_would_answer() -> None:
    async def run() -> None:
        async with connected(Host()) as tested:
            assert not tested._is_clusters("api.demo"), "nothing is the cluster's yet"
            await tested._configure_host()
            asked = {host: tested._is_clusters(host) for host in ("api.demo", "API.demo.", "k8s.example.org", "api")}
            assert asked == {"api.demo": True, "API.demo.": True, "k8s.example.org": False, "api": True}

    asyncio.run(run())
