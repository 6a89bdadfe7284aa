"""Resolvers that stand for the outside world: a program that answers a few test names and notes every question.

    python -I names.py --log FILE --listen LABEL=ADDRESS [--listen ...] --answer NAME=ADDRESS [...]

Each question is one JSON line in the log: {"at": seconds, "resolver": LABEL, "client": address, "name", "type"}.
Names below `.example` or `.test` that it does not know do not exist; for every other one it refuses to answer.
"""

import argparse
import asyncio
import functools
import json
import struct
import time
import typing
from pathlib import Path
from typing import TextIO

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

_TTL = 30
_TOP_LEVELS = (dns.name.from_text("example."), dns.name.from_text("test."), dns.name.from_text("example.org."))


class Resolver:
    """Answers from a table of host names."""

    def __init__(self, label: str, table: dict[dns.name.Name, str], log: TextIO) -> None:
        self._label = label
        self._table = table
        self._log = log

    def answer(self, wire: bytes, client: str) -> bytes | None:
        """The answer to one message; None for what is no question."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR or not query.question:
            return None
        question = query.question[0]
        self._note(client, question)
        response = dns.message.make_response(query, recursion_available=True)
        address = self._table.get(question.name)
        if address is not None:
            if question.rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", "A", address))
        elif any(question.name.is_subdomain(top) for top in _TOP_LEVELS):
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            response.set_rcode(dns.rcode.NXDOMAIN if len(question.name.labels) == 2 else dns.rcode.REFUSED)
        return response.to_wire()

    def _note(self, client: str, question: dns.rrset.RRset) -> None:
        entry = {
            "at": time.time(),
            "resolver": self._label,
            "client": client,
            "name": question.name.to_text(omit_final_dot=True),
            "type": dns.rdatatype.to_text(question.rdtype),
        }
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport does not derive from the class that describes it.
        self._transport = typing.cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._resolver.answer(data, addr[0])
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


async def _serve_stream(resolver: Resolver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    client = writer.get_extra_info("peername")[0]
    try:
        while True:
            (size,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), 30))
            answer = resolver.answer(await asyncio.wait_for(reader.readexactly(size), 30), client)
            if answer is None:
                return
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        return
    finally:
        writer.close()


async def _serve(listen: dict[str, str], table: dict[dns.name.Name, str], log: TextIO) -> None:
    loop = asyncio.get_running_loop()
    for label, address in listen.items():
        resolver = Resolver(label, table, log)
        await loop.create_datagram_endpoint(functools.partial(_Datagrams, resolver), local_addr=(address, 53))

        async def stream(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, resolver: Resolver = resolver
        ) -> None:
            await _serve_stream(resolver, reader, writer)

        await asyncio.start_server(stream, address, 53)
    await asyncio.Event().wait()


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def main() -> None:
    parser = argparse.ArgumentParser(description="Resolvers that stand for the outside world.")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--listen", type=_pair, action="append", required=True, metavar="LABEL=ADDRESS")
    parser.add_argument("--answer", type=_pair, action="append", default=[], metavar="NAME=ADDRESS")
    options = parser.parse_args()
    table = {dns.name.from_text(name): address for name, address in options.answer}
    with options.log.open("a") as log:
        asyncio.run(_serve(dict(options.listen), table, log))


if __name__ == "__main__":
    main()
