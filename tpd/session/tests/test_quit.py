"""A quit while something is under way: the other requests hear of it, and nothing of theirs stays in the cluster."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tpd.session.commands import Commands
from tpd.session.connection import Connection
from tpd.session.control import Control
from tpd.session.tests.cluster import SESSIONS, Cluster, cluster
from tunnel.aio.tasks import Tasks
from tunnel.kube.errors import KubeError
from tunnel.proto import daemon_pb2
from tunnel.testing.device import device_pair


class Worker:
    """A worker's inside: requests in, events out."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.events: dict[int, list[daemon_pb2.Event]] = {}
        self.news = asyncio.Event()

    def start(self, number: int, request: daemon_pb2.Request) -> None:
        events = self.events[number] = []

        def send(event: daemon_pb2.Event) -> None:
            events.append(event)
            self.news.set()

        self.commands.start(number, request, send)

    async def final(self, number: int) -> daemon_pb2.Event:
        while not self.events[number] or self.events[number][-1].WhichOneof("event") == "progress":
            self.news.clear()
            await self.news.wait()
        return self.events[number][-1]

    async def quit(self, number: int) -> daemon_pb2.Event:
        self.start(number, daemon_pb2.Request(quit=daemon_pb2.Quit()))
        return await self.final(number)


@asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    ours, theirs = device_pair()
    near, far = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=near)
    requests = Tasks("request")
    start = daemon_pb2.WorkerStart(device="test0", dns_address="10.255.0.2")
    connection = Connection(start, ours, Control(writer), Tasks("connection"))
    try:
        async with asyncio.timeout(20):
            yield Worker(Commands(connection, "the log", requests))
    finally:
        await requests.stop()
        await connection.close()
        writer.close()
        await writer.wait_closed()
        for end in (ours, theirs, far):
            end.close()


def connect_to(where: Cluster, folder: Path) -> daemon_pb2.Request:
    return daemon_pb2.Request(connect=daemon_pb2.Connect(kubeconfig=[where.kubeconfig(folder)]))


def test_a_quit_during_connect_takes_the_session_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.forwards and away.below(SESSIONS)))
            assert (await tested.quit(2)).WhichOneof("event") == "quit"
            error = (await tested.final(1)).error
            assert error.text == "the connection was ended by tpctl quit"
            assert away.below(SESSIONS) == []
            await away.until(lambda: not away.forwards)
            tested.start(3, connect_to(away, tmp_path))
            assert (await tested.final(3)).error.text == "the connection was ended by tpctl quit"

    asyncio.run(run())


def test_a_quit_while_the_session_is_being_created(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            away.gate.clear()
            tested.start(1, connect_to(away, tmp_path))
            await away.asked.wait()
            assert list((await tested.quit(2)).quit.not_released) == []
            assert (await tested.final(1)).error.text == "the connection was ended by tpctl quit"

    asyncio.run(run())


def test_two_quits_wait_for_the_same_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.below(SESSIONS)))
            events = await asyncio.gather(tested.quit(2), tested.quit(3))
            assert [event.WhichOneof("event") for event in events] == ["quit", "quit"]
            assert away.below(SESSIONS) == []

    asyncio.run(run())


def test_a_closed_api_is_an_api_error() -> None:
    async def run() -> None:
        async with cluster() as away:
            api = away.api()
            await api.close()
            with pytest.raises(KubeError, match="closed"):
                await api.get("/version")
            with pytest.raises(KubeError, match="closed"):
                await api.upgrade("/portforward", protocol="any")

    asyncio.run(run())
