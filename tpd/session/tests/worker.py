"""The inside of a session worker, without its process: a device that leads nowhere, a tpd that says nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tpd.session.commands import Commands
from tpd.session.connection import Connection
from tpd.session.control import Control
from tpd.session.tests.cluster import Cluster
from tunnel.aio.tasks import Tasks
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
