"""The webhook over HTTP: what is no review is refused, and what does not arrive is not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from aiohttp import web

from manager.config import Config
from manager.kube.owners import Owners
from manager.registry import Wishes
from manager.serve import http
from manager.webhook import server
from manager.webhook.server import Injector
from manager.wish import WishMaker
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials

UNREAD = b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf"


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """The webhook's port, without TLS."""
    config = Config("pod", "uid", "tpctl-system")
    owners = Owners(Api(Credentials("test", "default", "http://127.0.0.1:1")))
    wishes = Wishes()
    wishes.update({})
    application = Injector(owners, wishes, WishMaker(config, b"root")).application()
    runner = http.runner(application, "test")
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def exchange(*requests: bytes) -> list[bytes]:
    """The first line of the answer to each."""

    async def run() -> list[bytes]:
        async with serving() as port:
            lines = []
            for request in requests:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                lines.append(await asyncio.wait_for(reader.readline(), 5))
                writer.close()
            return lines

    return asyncio.run(run())


def post(body: bytes) -> bytes:
    return b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_what_is_no_review_is_refused_and_a_review_is_answered() -> None:
    review = {"request": {"uid": "1", "kind": {"kind": "Pod"}, "operation": "CREATE", "namespace": "n", "object": {}}}
    bad = (b"}{", b"[" * 100_000, b'{"request": []}', b'"request"', b"{}")
    lines = exchange(*(post(body) for body in bad), post(json.dumps(review).encode()))
    assert [line.split()[1] for line in lines] == [b"400"] * len(bad) + [b"200"]


def test_a_review_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_READ_WITHIN", 0.1)
    (line,) = exchange(UNREAD)
    assert line.split()[1] == b"408"


@pytest.mark.parametrize("header", [b"Content-Length: 1000000000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_no_api_server_sends_is_not_read(header: bytes) -> None:
    (line,) = exchange(b"POST /inject HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
    assert line.split()[1] == b"413"


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Bytes that Python holds now; the garbage collector does not come by itself, for it counts objects."""
    tracemalloc.start()
    gc.disable()
    yield lambda: tracemalloc.get_traced_memory()[0]
    gc.enable()
    tracemalloc.stop()


def test_little_is_kept_of_requests_that_are_none(traced: Callable[[], int]) -> None:
    garbage = b"POST /inject HTTP/1.1\r\nX: " + b"x" * 200_000
    exchange(garbage)
    before = traced()
    exchange(*[garbage] * 4 * http.COLLECT_EVERY)
    assert traced() - before < 2 * http.COLLECT_EVERY * len(garbage)


def test_nothing_is_kept_of_half_a_review(traced: Callable[[], int]) -> None:
    half = b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + bytes(3_000_000)

    async def until(holds: Callable[[int], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds(traced()):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    async def run() -> None:
        async with serving() as port:
            before = traced()
            for _ in range(4):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(half)
                await writer.drain()
                await until(lambda now: now > before + 2_900_000)
                writer.transport.abort()
                del writer
            await until(lambda now: now < before + 1_000_000)

    asyncio.run(run())


def test_what_strangers_send_is_not_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        (line,) = exchange(b"POST /inject HTTP/1.1\r\nX: " + b"x" * 100_000)
    assert line.split()[1] == b"400"
    assert sum(len(record.getMessage()) for record in caplog.records) < 1000
    assert "LineTooLong" not in caplog.text
