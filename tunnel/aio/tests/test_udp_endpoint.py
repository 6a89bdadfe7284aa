"""UDP sockets: whole datagrams, ICMP, expiry."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from tunnel.aio.udp_endpoint import dial_udp
from tunnel.endpoint import Refusal


class Seen:
    """A handler that remembers."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.refusals: list[Refusal] = []
        self.expired = 0
        self.changed = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something seen makes `condition` true."""
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def on_datagram(self, data: memoryview) -> None:
        self.datagrams.append(bytes(data))
        self.changed.set()

    def on_refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        self.changed.set()

    def on_expired(self) -> None:
        self.expired += 1
        self.changed.set()


async def test_datagrams_go_both_ways_whole() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        seen = Seen()
        endpoint = await dial_udp("127.0.0.1", peer.getsockname()[1], seen)

        def echo() -> None:
            data, address = peer.recvfrom(65535)
            peer.sendto(data + b"!" if data else data, address)

        loop.add_reader(peer.fileno(), echo)
        for number, size in enumerate((0, 1, 60000), 1):
            endpoint.send_datagram(bytes(size))
            await seen.wait_for(lambda number=number: len(seen.datagrams) == number)  # type: ignore[misc]
        assert [len(data) for data in seen.datagrams] == [0, 2, 60001]
        endpoint.close()
        loop.remove_reader(peer.fileno())


async def test_an_idle_socket_expires_once() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        seen, began = Seen(), loop.time()
        endpoint = await dial_udp("127.0.0.1", peer.getsockname()[1], seen, idle=0.2)
        await seen.wait_for(lambda: bool(seen.expired))
        assert loop.time() - began > 0.19
        endpoint.send_datagram(b"too late")
        endpoint.close()
        assert seen.expired == 1


async def test_a_port_nobody_listens_on_is_reported_and_closing_is_silent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    seen = Seen()
    endpoint = await dial_udp("127.0.0.1", port, seen)
    endpoint.send_datagram(b"x")
    await asyncio.wait_for(seen.changed.wait(), 2)
    assert seen.refusals[0] is Refusal.REFUSED
    endpoint.close()
    await asyncio.sleep(0.01)
    assert seen.expired == 0
