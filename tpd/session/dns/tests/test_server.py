"""Who is asked, and what the laptop hears; real sockets for the laptop's own resolver, a function for the cluster."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tpd.session.dns.names import names_of
from tpd.session.dns.server import DnsServer
from tpd.session.dns.upstream import Upstream
from tunnel.aio.tasks import Tasks

Replies = list[bytes]


class Resolver(asyncio.DatagramProtocol):
    """The laptop's own resolver: answers every A question, or stays silent."""

    def __init__(self, address: str = "192.0.2.1", *, silent: bool = False) -> None:
        self.address = address
        self.silent = silent
        self.asked: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.silent and self._transport is not None:
            self._transport.sendto(self.answer(data), addr)

    def answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        self.asked.append(str(query.question[0].name))
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", self.address))
        return reply.to_wire()

    async def over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length))
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


class Cluster:
    """The manager's side: answers what it knows, in the case it was asked."""

    def __init__(self, known: dict[str, str], *, near: bool = True, answers: bool = True) -> None:
        self.known = known
        self.near = near
        self.answers = answers
        self.asked: list[str] = []
        self.waiting: list[tuple[bytes, Callable[[bytes | None], None]]] = []

    def query(self, message: bytes, done: Callable[[bytes | None], None]) -> None:
        query = dns.message.from_wire(message)
        name = query.question[0].name
        self.asked.append(str(name))
        if not self.answers:
            self.waiting.append((message, done))
            return
        self.answer(message, done)

    def answer(self, message: bytes, done: Callable[[bytes | None], None]) -> None:
        query = dns.message.from_wire(message)
        name = query.question[0].name
        reply = dns.message.make_response(query)
        address = self.known.get(str(name).lower())
        if address is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        else:
            reply.answer.append(dns.rrset.from_text(name, 5, "IN", "A", address))
        done(reply.to_wire())


@asynccontextmanager
async def laptop(cluster: Cluster, *resolvers: Resolver) -> AsyncIterator[DnsServer]:
    loop = asyncio.get_running_loop()
    addresses, closers = [], []
    for resolver in resolvers:
        transport, _ = await loop.create_datagram_endpoint(lambda r=resolver: r, local_addr=("127.0.0.1", 0))  # type: ignore[misc]
        port = transport.get_extra_info("sockname")[1]
        server = await asyncio.start_server(resolver.over_tcp, "127.0.0.1", port)
        addresses.append(f"127.0.0.1:{port}")
        closers += [transport.close, server.close]
    tasks = Tasks("test")
    dns_server = DnsServer(
        query_cluster=cluster.query,
        cluster_is_near=lambda: cluster.near,
        upstream=Upstream(addresses),
        tasks=tasks,
        randomness=random.Random(7),
    )
    dns_server.names = names_of(
        connected="demo",
        managed=["demo", "ops", "com"],
        mapped=["demo", "ops", "com"],
        cluster_domain="cluster.local",
        subnets=["10.96.0.0/16"],
        host_search=[],
        taken=lambda label: label == "com",
    )
    try:
        yield dns_server
    finally:
        await tasks.stop()
        for close in closers:
            close()


async def ask(server: DnsServer, name: str, *, tcp: bool = False) -> dns.message.Message:
    reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    query = dns.message.make_query(name, "A")
    assert server.ask(query.to_wire(), tcp, reply.set_result)
    async with asyncio.timeout(20):
        answer = dns.message.from_wire(await reply)
    assert query.is_response(answer)
    assert answer.question[0].name.to_text() == query.question[0].name.to_text(), "the case is as it was asked"
    return answer


def addresses(message: dns.message.Message) -> list[str]:
    return [str(record) for rrset in message.answer for record in rrset]


def test_each_name_goes_to_its_own_side_and_to_no_other() -> None:
    async def run() -> None:
        cluster, resolver = Cluster({"echo.": "10.96.0.1", "echo.ops.": "10.96.0.2"}), Resolver()
        async with laptop(cluster, resolver) as server:
            assert addresses(await ask(server, "Echo.")) == ["10.96.0.1"]
            assert addresses(await ask(server, "echo.ops.")) == ["10.96.0.2"]
            assert (await ask(server, "nobody.ops.")).rcode() == dns.rcode.NXDOMAIN
            assert resolver.asked == []
            asked = len(cluster.asked)
            assert addresses(await ask(server, "www.example.org.")) == ["192.0.2.1"]
            assert addresses(await ask(server, "www.example.org.", tcp=True)) == ["192.0.2.1"]
            assert len(cluster.asked) == asked

    asyncio.run(run())


def test_a_namespace_that_is_a_public_domain_lets_through_what_the_cluster_does_not_know() -> None:
    async def run() -> None:
        cluster, resolver = Cluster({"shop.com.": "10.96.0.3"}), Resolver()
        async with laptop(cluster, resolver) as server:
            assert addresses(await ask(server, "shop.com.")) == ["10.96.0.3"]
            assert addresses(await ask(server, "github.com.")) == ["192.0.2.1"]
            assert addresses(await ask(server, "api.github.com.")) == ["192.0.2.1"]
            assert [name.lower() for name in cluster.asked] == ["shop.com.", "github.com."]

    asyncio.run(run())


def test_without_carrier_cluster_names_fail_at_once_and_others_go_on() -> None:
    async def run() -> None:
        resolver = Resolver()
        async with laptop(Cluster({}, near=False), resolver) as server:
            assert (await ask(server, "echo.ops.")).rcode() == dns.rcode.SERVFAIL
            assert addresses(await ask(server, "example.org.")) == ["192.0.2.1"]
            assert resolver.asked == ["example.org."]

    asyncio.run(run())


def test_a_silent_resolver_is_passed_over_and_remembered() -> None:
    async def run() -> None:
        silent, other = Resolver(silent=True), Resolver("192.0.2.9")
        async with laptop(Cluster({}), silent, other) as server:
            assert addresses(await ask(server, "example.org.")) == ["192.0.2.9"]
            begun = asyncio.get_running_loop().time()
            assert addresses(await ask(server, "example.org.")) == ["192.0.2.9"]
            assert asyncio.get_running_loop().time() - begun < 1

    asyncio.run(run())


def test_a_question_that_comes_back_is_answered_nxdomain() -> None:
    async def run() -> None:
        cluster = Cluster({}, answers=False)
        async with laptop(cluster) as server:
            assert server.ask(dns.message.make_query("echo.ops.", "A").to_wire(), False, lambda _: None)
            (sent,) = cluster.asked
            assert (await ask(server, sent)).rcode() == dns.rcode.NXDOMAIN
            assert len(cluster.asked) == 1, "it did not go round"

    asyncio.run(run())


def test_many_equal_questions_at_once_are_one_and_each_gets_its_own_answer() -> None:
    async def run() -> None:
        cluster = Cluster({"orders.": "10.96.0.4"}, answers=False)
        async with laptop(cluster) as server:
            asking = [asyncio.create_task(ask(server, name)) for name in ("orders.", "ORDERS.") for _ in range(64)]
            await asyncio.sleep(0)
            assert len(cluster.asked) == 1
            cluster.answer(*cluster.waiting.pop())
            assert [addresses(answer) for answer in await asyncio.gather(*asking)] == [["10.96.0.4"]] * 128
            again = asyncio.create_task(ask(server, "orders."))
            await asyncio.sleep(0)
            assert len(cluster.asked) == 2, "what was answered is asked anew"
            cluster.waiting.pop()[1](None)
            assert (await again).rcode() == dns.rcode.SERVFAIL

    asyncio.run(run())


def test_questions_that_differ_in_more_than_the_name_s_case_are_asked_each() -> None:
    async def run() -> None:
        cluster = Cluster({}, answers=False)
        async with laptop(cluster) as server:
            for query in (
                dns.message.make_query("orders.", "A"),
                dns.message.make_query("orders.", "AAAA"),
                dns.message.make_query("orders.", "A", use_edns=0, payload=4096),
                dns.message.make_query("orders.", "A", flags=0),
            ):
                for tcp in (False, True):
                    assert server.ask(query.to_wire(), tcp, lambda _: None)
            assert len(cluster.asked) == 8

    asyncio.run(run())


def test_very_many_different_questions_are_no_loop() -> None:
    async def run() -> None:
        cluster = Cluster({}, answers=False)
        heard: list[bytes] = []
        async with laptop(cluster) as server:
            for size in range(512, 612):
                assert server.ask(
                    dns.message.make_query("orders.", "A", use_edns=0, payload=size).to_wire(), False, heard.append
                )
            assert heard == []

    asyncio.run(run())


def test_what_nobody_in_the_cluster_knows_is_asked_upstream_once() -> None:
    async def run() -> None:
        cluster, resolver = Cluster({}, answers=False), Resolver()
        async with laptop(cluster, resolver) as server:
            asking = [asyncio.create_task(ask(server, "github.com.")) for _ in range(40)]
            await asyncio.sleep(0)
            cluster.answer(*cluster.waiting.pop())
            assert [addresses(answer) for answer in await asyncio.gather(*asking)] == [["192.0.2.1"]] * 40
            assert resolver.asked == ["github.com."]

    asyncio.run(run())


def test_long_answers_over_udp_are_cut() -> None:
    async def run() -> None:
        cluster = Cluster({})

        def long(message: bytes, done: Callable[[bytes | None], None]) -> None:
            reply = dns.message.make_response(dns.message.from_wire(message))
            reply.answer.append(
                dns.rrset.from_text(reply.question[0].name, 5, "IN", "A", *(f"10.0.0.{n}" for n in range(200)))
            )
            done(reply.to_wire(max_size=65535))

        cluster.query = long  # type: ignore[method-assign]  # one odd cluster
        async with laptop(cluster) as server:
            assert (await ask(server, "echo.ops.")).flags & dns.flags.TC
            assert len(addresses(await ask(server, "echo.ops.", tcp=True))) == 200

    asyncio.run(run())
