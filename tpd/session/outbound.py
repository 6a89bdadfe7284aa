"""Pure. What programs on the laptop start: connections and datagrams into the cluster, and questions to our resolver.

Every flow goes to the traffic-manager as a `Dial`; the laptop sees the outcome (connected, refused, unreachable) as it
would see it inside the cluster. Echo requests are not answered: nothing here can know whether the address would.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tpd.session.dns.stream import Ask, DnsStream
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.proto import open_pb2
from tunnel.splice import Splice
from tunnel.stack.vocabulary import StackHandler, UdpHandler

if TYPE_CHECKING:
    from tunnel.stack.connection import TcpConnection
    from tunnel.stack.icmp import EchoRequest
    from tunnel.stack.udp import UdpAssociation

DNS_PORT = 53
DIAL_LIMIT = 10.0
"""Seconds until a connection that nobody answered is unreachable; the time of a lost carrier counts."""


class Opener(Protocol):
    """The part of a link that is needed here."""

    def open(self, kind: FlowKind, body: bytes, handler: FlowHandler) -> Flow:
        """Open a flow."""


class Cancellable(Protocol):
    """A timer that has not fired."""

    def cancel(self) -> None:
        """It will not fire."""


Later = Callable[[float, Callable[[], None]], Cancellable]
"""Call after so many seconds (`loop.call_later`)."""


class Outbound(StackHandler):
    """Sends flows to the link that `link()` returns, and what goes to `dns_address` port 53 to `ask`."""

    def __init__(self, *, link: Callable[[], Opener | None], dns_address: str, ask: Ask, later: Later) -> None:
        self._later = later
        self._link = link
        self._dns = (dns_address, DNS_PORT)
        self._dns_host = dns_address
        self._ask = ask

    def on_tcp(self, connection: TcpConnection) -> EndpointHandler:
        """A SYN."""
        local = connection.local
        if local == self._dns:
            stream = DnsStream(connection, self._ask)
            connection.accept()
            return stream
        link = self._link()
        if link is None or local.host == self._dns_host:
            connection.refuse(Refusal.UNREACHABLE if link is None else Refusal.REFUSED)
            return FlowHandler()
        return _TcpDial(connection, link, _dial(local.host, local.port, open_pb2.TCP), self._later)

    def on_udp(self, association: UdpAssociation) -> UdpHandler:
        """The first datagram between two ports."""
        local = association.local
        if local == self._dns:
            return _DnsDatagrams(association, self._ask)
        link = self._link()
        if link is None or local.host == self._dns_host:
            association.refuse(Refusal.UNREACHABLE if link is None else Refusal.REFUSED)
            return _Deaf()
        return _UdpRelay(association, link, _dial(local.host, local.port, open_pb2.UDP))

    def on_echo(self, request: EchoRequest) -> None:
        """A ping: only our own resolver's address really answers."""
        if request.destination == self._dns_host:
            request.reply()


def _dial(host: str, port: int, transport: open_pb2.Transport.ValueType) -> bytes:
    address = ipaddress.ip_address(host).packed
    return open_pb2.Open(dial=open_pb2.Dial(transport=transport, address=address, port=port)).SerializeToString()


class _TcpDial(FlowHandler):
    """A connection whose SYN waits for the far side's answer. It hears both sides until a splice takes over."""

    def __init__(self, connection: TcpConnection, link: Opener, body: bytes, later: Later) -> None:
        self._connection = connection
        self._splice = Splice()
        self._flow: Flow | None = None
        self._timer = later(DIAL_LIMIT, self._expired)
        self._flow = link.open(FlowKind.STREAM, body, self)

    def on_opened(self) -> None:
        """The far side is connected."""
        self._timer.cancel()
        flow, connection, splice = self._flow, self._connection, self._splice
        if flow is not None:
            connection.attach(splice.left)
            flow.handler = splice.right
            splice.join(connection, flow)
            connection.accept()

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        """The far side is not."""
        self._timer.cancel()
        self._connection.refuse(Refusal.UNREACHABLE if refusal is Refusal.GONE else refusal)

    def on_closed(self, broken: Broken | None) -> None:
        """The stack gave up: nobody waits for the answer any more. (A flow that waits is refused, never closed.)"""
        self._timer.cancel()
        if self._flow is not None:
            self._flow.reset()

    def _expired(self) -> None:
        if self._flow is not None:
            self._flow.reset()
        self._connection.refuse(Refusal.TIMEOUT)


class _UdpRelay(UdpHandler):
    """Sends what an association brings into a datagram flow."""

    def __init__(self, association: UdpAssociation, link: Opener, body: bytes) -> None:
        self.flow: Flow | None = None
        self.flow = link.open(FlowKind.DATAGRAM, body, _UdpTowardsLaptop(association, self))

    def on_datagram(self, data: memoryview) -> None:
        if self.flow is not None:
            self.flow.send_datagram(data)

    def on_expired(self) -> None:
        flow, self.flow = self.flow, None
        if flow is not None:
            flow.reset()


class _UdpTowardsLaptop(FlowHandler):
    """What the flow brings goes to the association."""

    def __init__(self, association: UdpAssociation, relay: _UdpRelay) -> None:
        self._association = association
        self._relay = relay

    def on_datagram(self, data: memoryview) -> None:
        self._association.send(data)

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self._relay.flow = None
        self._association.refuse(refusal)

    def on_closed(self, broken: Broken | None) -> None:
        """Idle, or the link's other end is a new one: the program's next datagram begins anew."""
        self._relay.flow = None
        if broken is Broken.REFUSED:
            self._association.refuse(Refusal.REFUSED)
        else:
            self._association.close()


class _DnsDatagrams(UdpHandler):
    """Each datagram is a question. Programs use new ports all the time, so nothing stays after the last answer."""

    def __init__(self, association: UdpAssociation, ask: Ask) -> None:
        self._association = association
        self._ask = ask
        self._unanswered = 0

    def on_datagram(self, data: memoryview) -> None:
        self._unanswered += 1
        self._ask(bytes(data), False, self._answer)

    def _answer(self, answer: bytes) -> None:
        self._association.send(answer)
        self._unanswered -= 1
        if not self._unanswered:
            self._association.close()

    def on_expired(self) -> None:
        """Nothing is kept."""


class _Deaf(UdpHandler):
    """Nobody is there."""

    def on_datagram(self, data: memoryview) -> None:
        """Dropped."""

    def on_expired(self) -> None:
        """Nothing is kept."""
