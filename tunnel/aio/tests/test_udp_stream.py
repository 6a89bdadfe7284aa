"""UDP associations that are streams stay longer than a question and its answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tunnel.aio import udp_endpoint
from tunnel.aio.udp_endpoint import dial_udp
from tunnel.endpoint import Refusal


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
def test_only_a_stream_stays_longer(monkeypatch: pytest.MonkeyPatch, answered: bool) -> None:
    monkeypatch.setattr(udp_endpoint, "STREAM_AFTER", 0.05)

    async def run() -> None:
        loop, owner = asyncio.get_running_loop(), Owner()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.setblocking(False)
            far.bind(("127.0.0.1", 0))
            near = await dial_udp("127.0.0.1", far.getsockname()[1], owner, idle=0.4, stream_idle=60)
            for _ in range(3):
                near.send_datagram(b"?")
                _, address = await loop.sock_recvfrom(far, 100)
                if answered:
                    owner.answered.clear()
                    await loop.sock_sendto(far, b"!", address)
                    async with asyncio.timeout(5):
                        await owner.answered.wait()
                await asyncio.sleep(0.06)
            await asyncio.sleep(0.6)
            assert owner.expired is not answered
            near.close()

    asyncio.run(run())
