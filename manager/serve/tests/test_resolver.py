import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import uvloop

from manager.serve.dns import ClusterDns
from manager.serve.resolver import Resolver, parse

Answerer = Callable[[dns.message.Message, bool], dns.message.Message | None]


class Server(asyncio.DatagramProtocol):
    """A DNS server on loopback whose answers a function decides (question, over TCP?)."""

    def __init__(self, answer: Answerer) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None
        self.asked: list[str] = []
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def reply(self, data: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(data)
        self.asked.append(query.question[0].name.to_text())
        answer = self._answer(query, tcp)
        return None if answer is None else answer.to_wire()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self.reply(data, tcp=False)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, address)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.reply(await reader.readexactly(length), tcp=True)
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


def _same_port() -> tuple[socket.socket, socket.socket]:
    """A TCP and a UDP socket on one port, whichever is free for both."""
    while True:
        tcp, udp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
        tcp.bind(("127.0.0.1", 0))
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
            continue
        return tcp, udp


def _with_server(answer: Answerer, test: Callable[[Server, Resolver], Awaitable[None]]) -> None:
    async def body() -> None:
        server = Server(answer)
        tcp, udp = _same_port()
        server.port = tcp.getsockname()[1]
        listener = await asyncio.start_server(server.serve_tcp, sock=tcp)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, sock=udp)
        resolver = Resolver(["127.0.0.1"], server.port)
        try:
            await asyncio.wait_for(test(server, resolver), 20)
        finally:
            resolver.close()
            transport.close()
            listener.close()
            await listener.wait_closed()

    uvloop.run(body())


def _address(query: dns.message.Message, tcp: bool) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "10.0.0.1"))
    return answer


def test_many_questions_share_a_socket_and_each_gets_its_own_answer() -> None:
    async def test(server: Server, resolver: Resolver) -> None:
        queries = [dns.message.make_query(f"name{number}.", "A", id=7) for number in range(200)]
        answers = await asyncio.gather(*(resolver.ask(query.to_wire()) for query in queries))
        for query, answer in zip(queries, answers, strict=True):
            assert answer is not None
            parsed = dns.message.from_wire(answer)
            assert (parsed.id, parsed.question) == (7, query.question)

    _with_server(_address, test)


def test_a_cut_answer_is_asked_again_over_tcp() -> None:
    def answer(query: dns.message.Message, tcp: bool) -> dns.message.Message:
        if tcp:
            return _address(query, tcp)
        cut = dns.message.make_response(query)
        cut.flags |= dns.flags.TC
        return cut

    async def test(server: Server, resolver: Resolver) -> None:
        answer = await resolver.ask(dns.message.make_query("long.", "TXT").to_wire())
        assert answer is not None
        assert not dns.message.from_wire(answer).flags & dns.flags.TC
        assert server.asked == ["long.", "long."]

    _with_server(answer, test)


def test_silence_is_asked_again_and_ends() -> None:
    async def test(server: Server, resolver: Resolver) -> None:
        assert await resolver.ask(dns.message.make_query("lost.", "A").to_wire()) is None
        assert server.asked == ["lost.", "lost."]

    _with_server(lambda query, tcp: None, test)


def test_a_closed_port_is_no_answer_at_once() -> None:
    async def test(server: Server, resolver: Resolver) -> None:
        closed = Resolver(["127.0.0.1"], 1)
        async with asyncio.timeout(1):
            assert await closed.ask(dns.message.make_query("x.", "A").to_wire()) is None

    _with_server(_address, test)


@pytest.mark.parametrize("turns", range(6))
def test_a_question_given_up_while_its_socket_opens_leaves_none(turns: int) -> None:
    async def body() -> None:
        before = set(os.listdir("/proc/self/fd"))
        resolver = Resolver(["127.0.0.1"], 1)
        asking = asyncio.create_task(resolver.ask(dns.message.make_query("x.", "A").to_wire()), name="asking")
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        resolver.close()
        await asyncio.sleep(0.01)
        assert set(os.listdir("/proc/self/fd")) == before

    uvloop.run(body())


def test_a_short_name_is_searched_in_the_connected_namespace() -> None:
    def answer(query: dns.message.Message, tcp: bool) -> dns.message.Message:
        if query.question[0].name.to_text() == "echo.shop.svc.cluster.local.":
            return _address(query, tcp)
        nothing = dns.message.make_response(query)
        nothing.set_rcode(dns.rcode.NXDOMAIN)
        return nothing

    async def test(server: Server, resolver: Resolver) -> None:
        cluster = ClusterDns(resolver, "cluster.local")

        async def ask(name: str) -> dns.message.Message:
            return dns.message.from_wire(await cluster.answer(dns.message.make_query(name, "A").to_wire(), "shop"))

        assert [rrset.to_text() for rrset in (await ask("echo")).answer] == ["echo. 5 IN A 10.0.0.1"]
        assert (await ask("echo.shop")).answer
        assert (await ask("nope")).rcode() == dns.rcode.NXDOMAIN
        assert await cluster.answer(b"garbage", "shop") == b""
        assert all(name.endswith(".cluster.local.") for name in server.asked)

    _with_server(answer, test)


def test_resolv_conf_is_read_as_resolvers_do() -> None:
    conf = parse("# x\nsearch a.svc.c svc.c c\nnameserver 10.0.0.10 # y\nnameserver nonsense\noptions ndots:5\n")
    assert conf.servers == ("10.0.0.10",)
    assert conf.search == ("a.svc.c", "svc.c", "c")
