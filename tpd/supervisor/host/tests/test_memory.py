"""The host that only remembers decides as the real one."""

from __future__ import annotations

import asyncio
import os

from tpd.supervisor.host.memory import MemoryHost
from tpd.supervisor.host.types import Wish


def test_two_connections_of_one_name_do_not_hide_one_another() -> None:
    async def scenario() -> None:
        host = MemoryHost()
        subnets = ("10.96.0.0/16", "10.97.0.0/16")
        slots = []
        for uid, subnet in ((1000, subnets[0]), (1000, subnets[1]), (1001, "")):
            device = await host.open("twin", uid)
            os.close(device.fd)
            slots.append(device.slot)
            await host.apply(device.slot, Wish(subnets=(subnet,) if subnet else ()))
        applied = await host.apply(slots[2], Wish(subnets=subnets, bypass=("10.96.0.10", "203.0.113.7")))
        assert applied.granted.subnets == ()
        assert len(applied.refused) == 3
        assert "throw 203.0.113.7/32 table 7000" in host.text()
        await host.close(slots[2])
        assert "throw" not in host.text()

    asyncio.run(scenario())
