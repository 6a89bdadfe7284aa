"""The driver on asyncio and uvloop, over a device without root, against the model peer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from tunnel.aio.stack_driver import StackDriver
from tunnel.stack import Limits, Stack
from tunnel.stack.tests.peer import Peer
from tunnel.stack.vocabulary import Packet
from tunnel.testing.device import SocketDevice, device_pair
from tunnel.testing.services import ECHO, PENDING, Services

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Factory = Callable[[], asyncio.AbstractEventLoop]


class Bench:
    """A stack behind a driver, and the device's other end."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.services = Services()
        self.stack = Stack(self.services, random32=lambda: 7, limits=limits)
        device, self.far = device_pair()
        self.device = device
        self.lost: list[OSError] = []
        self.driver = StackDriver(device, self.stack, on_lost=self.lost.append)

    def close(self) -> None:
        self.driver.stop()
        self.driver.stop()
        self.device.close()
        self.far.close()


def run(factory: Factory, main: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def writer(device: SocketDevice) -> Callable[[Packet], None]:
    def write(packet: Packet) -> None:
        assert device.write([b"".join(packet)])

    return write


async def drive(peer: Peer, device: SocketDevice, until: Callable[[], bool]) -> None:
    """Be the kernel: real time, one packet at a time."""
    loop = asyncio.get_running_loop()
    send = writer(device)
    deadline = loop.time() + 10
    while not until():
        assert loop.time() < deadline
        packet = device.read()
        if packet is not None:
            peer.receive(packet, loop.time(), send)
            continue
        peer.read(loop.time(), send)
        peer.tick(loop.time(), send)
        await asyncio.sleep(0.0005)


@LOOPS
def test_an_echo_of_a_megabyte(factory: Factory) -> None:
    data = random.Random(1).randbytes(1_000_000)

    async def main() -> None:
        bench = Bench()
        bench.driver.start()
        peer = Peer(1, data, to_port=ECHO, buffer=100_000)
        peer.start(asyncio.get_running_loop().time(), writer(bench.far))
        await drive(peer, bench.far, lambda: peer.finished and bench.services.services[0].closed == [None])
        assert peer.got == data
        bench.close()

    run(factory, main)


@LOOPS
def test_a_full_device_is_waited_for(factory: Factory) -> None:
    async def main() -> None:
        bench = Bench()
        bench.driver.start()
        data = bytes(500_000)
        peer = Peer(1, data, to_port=ECHO, buffer=100_000)
        peer.start(asyncio.get_running_loop().time(), writer(bench.far))
        jam = 0
        while bench.device.write([bytes(60_000)]):
            jam += 1
        assert jam > 3
        await asyncio.sleep(0.05)
        Peer(2, b"", to_port=PENDING).start(asyncio.get_running_loop().time(), writer(bench.far))
        await asyncio.sleep(0.05)
        assert len(bench.services.services) == 1, "what comes meanwhile waits in the device"
        for _ in range(jam):
            assert bench.far.read() == bytes(60_000)
        await drive(peer, bench.far, lambda: peer.finished)
        assert peer.got == data
        assert len(bench.services.services) == 2
        bench.close()

    run(factory, main)


@LOOPS
def test_the_timer_fires(factory: Factory) -> None:
    async def main() -> None:
        bench = Bench(Limits(dial_timeout=0.05))
        bench.driver.start()
        peer = Peer(1, b"", to_port=PENDING)
        peer.start(asyncio.get_running_loop().time(), writer(bench.far))
        await asyncio.sleep(0.3)
        assert [service.closed for service in bench.services.services] == [[3]]
        bench.close()

    run(factory, main)


@LOOPS
def test_stop_resets_what_is_open(factory: Factory) -> None:
    async def main() -> None:
        bench = Bench()
        bench.driver.start()
        peer = Peer(1, b"abc", to_port=ECHO)
        peer.start(asyncio.get_running_loop().time(), writer(bench.far))
        await drive(peer, bench.far, lambda: bool(peer.got))
        bench.driver.stop()
        await drive(peer, bench.far, lambda: peer.reset)
        assert bench.stack.tcp_connections == 0
        bench.close()

    run(factory, main)


@LOOPS
def test_a_lost_device_is_told_once(factory: Factory) -> None:
    async def main() -> None:
        bench = Bench()
        bench.driver.start()
        bench.far.close()
        await asyncio.sleep(0.05)
        assert len(bench.lost) == 1
        bench.close()

    run(factory, main)
