"""The laptop's own resolvers, asked and given up."""

from __future__ import annotations

import asyncio
import os

import pytest
import uvloop

from tpd.session.dns.question import Question
from tpd.session.dns.upstream import Upstream


@pytest.mark.parametrize("turns", range(6))
def test_a_question_given_up_while_its_socket_opens_leaves_none(turns: int) -> None:
    question = Question(1, 0, ("x",), b"\1x\0", 1, 1)

    async def body() -> None:
        before = set(os.listdir("/proc/self/fd"))
        asking = asyncio.create_task(Upstream(["127.0.0.1:1"]).ask(b"?", question, tcp=False), name="asking")
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0.01)
        assert set(os.listdir("/proc/self/fd")) == before

    uvloop.run(body())  # as the worker itself
