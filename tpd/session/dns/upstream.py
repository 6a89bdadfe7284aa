"""The laptop's own resolvers: questions go to them as they came, answers come back as they were."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence

from tpd.session.dns.question import Question, answers_to

ATTEMPT = 2.0
"""Seconds for one resolver before the next one is asked; a stub resolver's own limit is 5 s for all."""
ROUNDS = 2
_PORT = 53
_LENGTH = struct.Struct("!H")


class Upstream:
    """Forwards raw messages. `addresses` may change at any time; the resolver that answered last is asked first."""

    def __init__(self, addresses: Sequence[str] = ()) -> None:
        self.addresses = list(addresses)

    def set(self, addresses: Sequence[str]) -> None:
        """The laptop's resolvers have changed."""
        self.addresses = list(addresses)

    async def ask(self, message: bytes, question: Question, *, tcp: bool) -> bytes | None:
        """The first answer, or None when nobody answered. A truncated answer over UDP is passed on: the client
        then asks over TCP, and so do we."""
        for _ in range(ROUNDS):
            for address in list(self.addresses):
                try:
                    async with asyncio.timeout(ATTEMPT):
                        reply = await (_over_tcp if tcp else _over_udp)(address, message, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
                self._prefer(address)
                return reply
        return None

    def _prefer(self, address: str) -> None:
        if self.addresses and self.addresses[0] != address and address in self.addresses:
            self.addresses.remove(address)
            self.addresses.insert(0, address)


class _Once(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers the question; others (spoofed, late) are ignored."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.BaseTransport | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._closed:
            transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done() and answers_to(data, self._question):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)

    def close(self) -> None:
        """Close the socket, now or as soon as there is one: uvloop opens it also for a question that was given up."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()


async def _over_udp(address: str, message: bytes, question: Question) -> bytes:
    loop = asyncio.get_running_loop()
    family, where = _resolver(address)
    once = _Once(question)
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: once, remote_addr=where, family=family)
        transport.sendto(message)
        return await once.reply
    finally:
        once.close()


async def _over_tcp(address: str, message: bytes, question: Question) -> bytes:
    _, where = _resolver(address)
    reader, writer = await asyncio.open_connection(*where)
    try:
        writer.write(_LENGTH.pack(len(message)) + message)
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            reply = await reader.readexactly(length)
            if answers_to(reply, question):
                return reply
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _resolver(address: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Address with an optional port as `1.2.3.4:5353` or `[::1]:5353`; port 53 otherwise."""
    host, port = address, _PORT
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = int(rest[1:]) if rest.startswith(":") else _PORT
    elif address.count(":") == 1:
        host, _, text = address.partition(":")
        port = int(text)
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)
