"""The webhook over HTTP: what is no review is refused, and what does not arrive is not waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from aiohttp import web

from manager.config import Config
from manager.kube.owners import Owners
from manager.registry import Wishes
from manager.webhook import server
from manager.webhook.server import Injector
from manager.wish import WishMaker
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials

UNREAD = b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"


def exchange(*requests: bytes) -> Iterator[bytes]:
    """The first line of the answer to each."""

    async def run() -> list[bytes]:
        config = Config("pod", "uid", "tpctl-system")
        owners = Owners(Api(Credentials("test", "default", "http://127.0.0.1:1")))
        wishes = Wishes()
        wishes.update({})
        runner = web.AppRunner(Injector(owners, wishes, WishMaker(config, b"root")).application())
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            lines = []
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
                writer.write(request)
                lines.append(await asyncio.wait_for(reader.readline(), 5))
                writer.close()
            return lines
        finally:
            await runner.cleanup()

    yield from asyncio.run(run())


def post(body: bytes) -> bytes:
    return b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_what_is_no_review_is_refused_and_a_review_is_answered() -> None:
    review = {"request": {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "n", "object": {}}}
    bad = (b"}{", b"[" * 100_000, b'{"request": []}', b'"request"', b"{}")
    lines = list(exchange(*(post(body) for body in bad), post(json.dumps(review).encode())))
    assert [line.split()[1] for line in lines] == [b"400"] * len(bad) + [b"200"]


def test_a_review_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_READ_WITHIN", 0.1)
    (line,) = exchange(UNREAD)
    assert line.split()[1] == b"408"
