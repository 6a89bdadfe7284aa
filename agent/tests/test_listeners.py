"""The listeners, stopped at any moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from agent.decide import Decision, PortKey, Route
from agent.listeners import Listeners
from tunnel.mux.link import Link
from tunnel.mux.window import Budget


class Nobody:
    """No laptop is connected."""

    def link(self, session: str) -> Link | None:
        return None

    def when_linked(self, session: str, call: Callable[[Link], None]) -> Callable[[], None]:
        return lambda: None


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_stopped_while_it_opens_a_port_it_leaves_no_socket(protocol: str, turns: int) -> None:
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM

    def bind(port: int, kind: socket.SocketKind = kind) -> int:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("0.0.0.0", port))
            return int(probe.getsockname()[1])

    port, ready = bind(0), bind(0, socket.SOCK_STREAM)

    async def body() -> None:
        route = Route("s1", "e1")
        listeners = Listeners(Nobody(), Budget(), ready)
        listeners.want(Decision({PortKey(protocol, port): route}, {route: "app"}))
        running = asyncio.create_task(listeners.run(), name="listeners")
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        await asyncio.sleep(0.01)

    uvloop.run(body())  # as the agent itself; a transport that is still open here never lets the loop close
    assert bind(port) == port
    assert bind(ready, socket.SOCK_STREAM) == ready
