"""What answers behind a stack in tests and benchmarks: by port, at any address.

The ports below 7 refuse with the `Refusal` of that number.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final

from tunnel.endpoint import Broken, Refusal
from tunnel.stack import EchoRequest, TcpConnection, UdpAssociation

DIGEST: Final = 8
"""As SINK; at the peer's end it sends the SHA-256 of what came."""
ECHO: Final = 7
"""Sends back what comes; ends when the peer ends."""
SINK: Final = 9
"""Drops what comes; ends when the peer ends."""
RESET: Final = 11
"""Resets at the first byte."""
STALL: Final = 12
"""Takes bytes and consumes none of them until `Services.release`."""
GREETING: Final = 13
"""Says "hello" and ends its direction at once, then counts what comes until the peer ends too."""
PENDING: Final = 14
"""Neither accepts nor refuses."""
SOURCE: Final = 19
"""Sends as many bytes as the decimal number that it receives says; ends when the peer ends."""

_PERIOD: Final = 262139
"""A prime: what is lost, repeated or moved does not fit in again at another place."""
_PATTERN: Final = memoryview(random.Random(_PERIOD).randbytes(_PERIOD) * 2)


def pattern(position: int, size: int) -> memoryview:
    """What SOURCE sends from there on: at most `size` bytes, and at most those until the pattern's second end."""
    start = position % _PERIOD
    return _PATTERN[start : start + size]


class Service:
    """One connection's service."""

    def __init__(self, services: Services, connection: TcpConnection) -> None:
        self.connection = connection
        self.received = 0
        """Bytes."""
        self.eof = False
        self.closed: list[Broken | None] = []
        """What `on_closed` said; never more than one entry."""
        self._services = services
        self._port = connection.local.port
        self._waiting: list[memoryview] = []
        self._credit = 0
        self._position = 0
        self._digest = hashlib.sha256()

    def on_data(self, data: memoryview) -> None:
        """See the ports."""
        connection = self.connection
        self.received += len(data)
        if self._port == RESET:
            connection.reset()
        elif self._port == STALL and not self._services.released:
            return
        elif self._port == ECHO:
            self._waiting.append(data)
            self.on_writable()
        else:
            connection.consumed(len(data))
            if self._port == DIGEST:
                self._digest.update(data)
            if self._port == SOURCE:
                self._credit += int(data.tobytes().decode())
                self.on_writable()

    def on_eof(self) -> None:
        """Answer the end with the end, after everything else."""
        self.eof = True
        self.on_writable()

    def on_writable(self) -> None:
        """Go on."""
        connection = self.connection
        while self._waiting:
            data = self._waiting[0]
            taken = connection.send(data)
            connection.consumed(taken)
            if taken < len(data):
                self._waiting[0] = data[taken:]
                return
            self._waiting.pop(0)
        while self._credit:
            taken = connection.send(pattern(self._position, self._credit))
            if not taken:
                return
            self._credit -= taken
            self._position += taken
        if self.eof:
            if self._port == DIGEST:
                connection.send(memoryview(self._digest.digest()))
            connection.send_eof()

    def on_closed(self, broken: Broken | None) -> None:
        """Note it."""
        self.closed.append(broken)


class DatagramEcho:
    """Sends datagrams back; the ports below 7 refuse."""

    def __init__(self, association: UdpAssociation) -> None:
        self.association = association
        self.expired = False
        if association.local.port < ECHO:
            association.refuse(Refusal(association.local.port))

    def on_datagram(self, data: memoryview) -> None:
        """Back it goes."""
        self.association.send(data)

    def on_expired(self) -> None:
        """Note it."""
        self.expired = True


class Services:
    """A stack's handler that offers all of it."""

    def __init__(self) -> None:
        self.released = False
        self.services: list[Service] = []
        """Every connection ever, in order of arrival."""
        self.associations: list[DatagramEcho] = []

    def on_tcp(self, connection: TcpConnection) -> Service:
        """See the ports."""
        service = Service(self, connection)
        self.services.append(service)
        port = connection.local.port
        if port < ECHO:
            connection.refuse(Refusal(port))
        elif port != PENDING:
            connection.accept()
        if port == GREETING:
            connection.send(memoryview(b"hello"))
            connection.send_eof()
        return service

    def on_udp(self, association: UdpAssociation) -> DatagramEcho:
        """Echo, or refuse."""
        echo = DatagramEcho(association)
        self.associations.append(echo)
        return echo

    def on_echo(self, request: EchoRequest) -> None:
        """Hosts whose address ends in an odd number answer pings."""
        if request.destination[-1] in "13579":
            request.reply()

    def release(self) -> None:
        """Let the stalled ones go on."""
        self.released = True
        for service in self.services:
            if service.connection.local.port == STALL:
                service.connection.consumed(service.received)
