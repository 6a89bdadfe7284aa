"""Asks the pod's own resolver (the cluster's DNS), raw message by raw message: UDP, and TCP when the answer is cut."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

RESOLV_CONF = Path("/etc/resolv.conf")

_PORT = 53
_TRY = 1.5
"""Seconds for one try; there are two at each server, within the five that a query of the tunnel has."""
_TRIES = 2
_SOCKET_LIFE = 5.0
"""Seconds after which new queries use a new socket: a connected one sticks to one replica of the cluster's DNS, even
to one that is gone."""
_TRUNCATED = 0x02
_RESPONSE = 0x80
_HEADER = 12


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """The parts of resolv.conf(5) that matter here."""

    servers: tuple[str, ...]
    search: tuple[str, ...]


def parse(text: str) -> ResolvConf:
    """Read a resolv.conf; lines that cannot be understood are left out."""
    servers: list[str] = []
    search: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(str(ipaddress.ip_address(words[1])))
            except ValueError:
                continue
        elif words and words[0] in ("search", "domain"):
            search = words[1:]
    return ResolvConf(tuple(servers), tuple(search))


class _Socket(asyncio.DatagramProtocol):
    """One connected UDP socket with many queries under way, told apart by their ids."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.transport: asyncio.DatagramTransport | None = None
        self.born = 0.0
        self.retired = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # uvloop's do not inherit from asyncio's
        self.close_if_idle()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if len(data) < _HEADER or not data[2] & _RESPONSE:
            return
        future = self.waiting.get(int.from_bytes(data[:2]))
        if future is not None and not future.done():
            future.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """The port is closed: nobody will answer what is under way."""
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(exc if isinstance(exc, OSError) else OSError(str(exc)))

    def retire(self) -> None:
        """Close as soon as nothing is under way; at once when it is opened only then."""
        self.retired = True
        self.close_if_idle()

    def close_if_idle(self) -> None:
        if self.retired and not self.waiting and self.transport is not None:
            self.transport.close()
            self.transport = None


class Resolver:
    """`ask(message)` gives the raw answer, or None when no server answers in time."""

    def __init__(self, servers: Sequence[str], port: int = _PORT) -> None:
        self._servers = tuple(servers)
        self._port = port
        self._sockets: dict[str, _Socket] = {}
        self._random = random.SystemRandom()

    async def ask(self, message: bytes) -> bytes | None:
        """Send a question whose id does not matter; the answer carries the question's own id."""
        if len(message) < _HEADER:
            return None
        for _ in range(_TRIES):
            for server in self._servers:
                try:
                    async with asyncio.timeout(_TRY):
                        answer = await self._by_udp(server, message)
                        if answer[2] & _TRUNCATED:
                            answer = await self._by_tcp(server, message)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    self._retire(server)
                    continue
                return message[:2] + answer[2:]
        return None

    def close(self) -> None:
        """Close every socket; what is under way stays unanswered."""
        for server in list(self._sockets):
            self._retire(server)

    async def _by_udp(self, server: str, message: bytes) -> bytes:
        udp = await self._socket(server)
        while (identifier := self._random.getrandbits(16)) in udp.waiting:
            continue
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        udp.waiting[identifier] = future
        try:
            if udp.transport is None:
                raise OSError("the socket is closed")
            udp.transport.sendto(identifier.to_bytes(2) + message[2:])
            return await future
        finally:
            del udp.waiting[identifier]
            udp.close_if_idle()

    async def _socket(self, server: str) -> _Socket:
        loop = asyncio.get_running_loop()
        udp = self._sockets.get(server)
        if udp is not None and loop.time() - udp.born < _SOCKET_LIFE and len(udp.waiting) < 4096:
            return udp
        fresh = _Socket()
        try:
            await loop.create_datagram_endpoint(lambda: fresh, remote_addr=(server, self._port))
        except BaseException:
            fresh.retire()  # a question that was given up meanwhile: uvloop opens the transport all the same
            raise
        fresh.born = loop.time()
        self._retire(server)
        self._sockets[server] = fresh
        return fresh

    def _retire(self, server: str) -> None:
        udp = self._sockets.pop(server, None)
        if udp is not None:
            udp.retire()

    async def _by_tcp(self, server: str, message: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(struct.pack("!H", len(message)) + message)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer: bytes = await reader.readexactly(length)
            if len(answer) < _HEADER:
                raise OSError("the answer is too short")
            return answer
        finally:
            writer.close()
