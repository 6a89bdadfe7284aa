"""What a connection says of itself when its parts come and go."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from tpd.session.connection import Connection
from tunnel.aio.link_client import LinkState
from tunnel.aio.tasks import Tasks
from tunnel.proto import daemon_pb2
from tunnel.testing.namespace import Namespace

pytestmark = pytest.mark.root


class AnyApi:
    def __init__(self) -> None:
        self.fresh = 0

    def start_afresh(self) -> None:
        self.fresh += 1


def test_states() -> None:
    async def body() -> None:
        with Namespace() as namespace:
            device = namespace.tun()
            start = daemon_pb2.WorkerStart(dns_address="10.0.0.1")
            connection = Connection(start, device, cast(Any, None), Tasks("test"))
            api = AnyApi()
            connection.api = cast(Any, api)
            connection._set_state("connected")
            connection._on_link_state(LinkState.CONNECTED)
            assert api.fresh == 0
            connection._on_link_state(LinkState.RECONNECTING)
            connection._on_link_state(LinkState.CONNECTED)
            assert (connection.status().state, api.fresh) == ("connected", 1)

            connection._driver.start()
            await asyncio.to_thread(namespace.ip, "link", "delete", "tun0")
            await asyncio.sleep(0.2)
            connection._on_link_state(LinkState.RECONNECTING)
            connection._on_link_state(LinkState.CONNECTED)
            status = connection.status()
            assert (status.state, "TUN device is gone" in status.reason) == ("failed", True)
            connection._driver.stop()
            device.close()

    asyncio.run(body())
