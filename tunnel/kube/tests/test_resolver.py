"""The API server stays reachable by the addresses it had, when nobody can say its name any more."""

from __future__ import annotations

import asyncio

import pytest

from tunnel.kube import resolver
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials
from tunnel.kube.resolver import LastGoodResolver


class Names:
    """A resolver: `answer` is what it says, `silent` makes it say nothing at all."""

    def __init__(self, *answer: str) -> None:
        self.answer = list(answer)
        self.silent = False
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if self.silent:
            await asyncio.sleep(3600)
        if not self.answer:
            raise OSError("no such name")
        return self.answer


async def _addresses(resolver: LastGoodResolver) -> list[str]:
    return [found["host"] for found in await resolver.resolve("api", 443)]


def test_the_last_good_addresses_serve_while_the_resolver_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_PATIENCE", 0.05)

    async def body() -> None:
        names = Names("192.0.2.1", "2001:db8::1")
        tested = LastGoodResolver(names)
        assert await _addresses(tested) == ["192.0.2.1", "2001:db8::1"]
        names.answer = ["192.0.2.2"]
        assert await _addresses(tested) == ["192.0.2.2"]
        names.answer = []
        assert await _addresses(tested) == ["192.0.2.2"]
        names.silent = True
        assert await _addresses(tested) == ["192.0.2.2"]

    asyncio.run(body())


def test_a_name_that_never_was_known_is_an_error() -> None:
    with pytest.raises(OSError, match="no such name"):
        asyncio.run(_addresses(LastGoodResolver(Names())))


def test_an_api_asks_the_resolver_it_was_given() -> None:
    async def body() -> None:
        names = Names("127.0.0.1")
        server = await asyncio.start_server(_answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Api(Credentials("test", "default", f"http://api.invalid:{port}"), resolve=names) as api:
            assert await api.get("/version") == {"major": "1"}
        assert names.asked == ["api.invalid"]

    asyncio.run(body())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"major":"1"}')
    await writer.drain()
    writer.close()
