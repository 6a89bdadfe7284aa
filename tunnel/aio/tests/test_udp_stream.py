"""UDP associations that are streams stay longer than a question and its answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tunnel.aio.udp_endpoint import IDLE, STREAM_AFTER, STREAM_IDLE, dial_udp
from tunnel.endpoint import Refusal


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    leapt = 0.0

    def time(self) -> float:
        return super().time() + self.leapt

    async def leap(self, seconds: float) -> None:
        """Let time pass at once, and what is due then happen."""
        self.leapt += seconds
        for _ in range(3):
            await asyncio.sleep(0)


class Owner:
    def __init__(self) -> None:
        self.expired = False
        self.answered = asyncio.Event()

    def on_datagram(self, data: memoryview) -> None:
        self.answered.set()

    def on_refused(self, refusal: Refusal) -> None:
        raise AssertionError("somebody listens there")

    def on_expired(self) -> None:
        self.expired = True


@pytest.mark.parametrize("answered", [True, False])
def test_only_a_stream_stays_longer(answered: bool) -> None:
    loop = LeapingLoop()

    async def run() -> None:
        owner = Owner()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.setblocking(False)
            far.bind(("127.0.0.1", 0))
            near = await dial_udp("127.0.0.1", far.getsockname()[1], owner)
            for _ in range(3):
                near.send_datagram(b"?")
                _, address = await loop.sock_recvfrom(far, 100)
                if answered:
                    owner.answered.clear()
                    await loop.sock_sendto(far, b"!", address)
                    await owner.answered.wait()
                await loop.leap(STREAM_AFTER)
            assert not owner.expired
            await loop.leap(IDLE)
            assert owner.expired is not answered
            await loop.leap(STREAM_IDLE)
            assert owner.expired

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
