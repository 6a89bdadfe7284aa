"""What somebody in the cluster sends to an engaged port, on its way to the laptop: one object per caller.

TCP is accepted by the kernel before anybody can be asked, so a caller whose connection the laptop does not want is
reset. Callers find no difference between a laptop that is away for a moment and a slow one: an opening waits for it,
but not long.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Protocol, cast

from agent.decide import PortKey, Route
from tunnel.aio.socket_endpoint import SocketEndpoint
from tunnel.endpoint import Broken, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.link import Link
from tunnel.proto import open_pb2
from tunnel.splice import Splice

ABSENT_SECONDS = 2.0
"""How long an opening waits for a laptop that has not come yet, has no carrier, or does not acknowledge it."""
DIAL_SECONDS = 12.0
"""How long it waits for an answer of a laptop that is there: its own dial limit, and the way to it."""
MAX_WAITING = 256
"""Connections of one session that may wait for their opening; the next is reset at once."""
ASSOCIATION_SECONDS = 120.0
"""An association without datagrams in either direction is forgotten after this, if not ended by the laptop before."""
MAX_ASSOCIATIONS = 1024
"""Per port; the next caller's datagrams are dropped until one expires."""

Caller = tuple[str, int]


class Sessions(Protocol):
    """Where inbound traffic finds the laptops."""

    def link(self, session: str) -> Link | None:
        """The session's link, also while it is detached; None when it has none."""

    def when_linked(self, session: str, call: Callable[[Link], None]) -> Callable[[], None]:
        """Call once the session has a link; the result takes that back."""


def inbound_open(key: PortKey, route: Route, caller: Caller) -> bytes:
    """The body of the open frame."""
    transport = open_pb2.Transport.UDP if key.protocol == "UDP" else open_pb2.Transport.TCP
    return open_pb2.Open(
        inbound=open_pb2.Inbound(
            transport=transport,
            engagement=route.engagement,
            container_port=key.port,
            caller_address=ipaddress.ip_address(caller[0].partition("%")[0]).packed,
            caller_port=caller[1],
        )
    ).SerializeToString()


class TcpCaller(FlowHandler):
    """One accepted connection, from its opening to its end.

    `on_open` is called when the laptop has accepted it; `on_end` once, perhaps within `start`.
    """

    def __init__(
        self,
        endpoint: SocketEndpoint,
        body: bytes,
        sessions: Sessions,
        session: str,
        on_open: Callable[[TcpCaller], None],
        on_end: Callable[[TcpCaller], None],
    ) -> None:
        self._endpoint = endpoint
        self._body = body
        self._sessions = sessions
        self._session = session
        self._on_open = on_open
        self._on_end = on_end
        self._splice = Splice(self._ended)
        self._flow: Flow | None = None
        self._opened = False
        self._over = False
        self._unlisten: Callable[[], None] | None = None
        self._link: Link | None = None
        self._loop = asyncio.get_running_loop()
        self._begun = self._asked = self._loop.time()
        self._timer = self._loop.call_later(ABSENT_SECONDS, self._look)

    def start(self) -> None:
        """Ask the laptop, now or when it has come."""
        self._endpoint.start(self._splice.left)
        if self._over:
            return  # the caller has gone already
        link = self._sessions.link(self._session)
        if link is not None:
            self._open(link)
        else:
            self._unlisten = self._sessions.when_linked(self._session, self._open)

    def reset(self) -> None:
        """End it now: the caller sees a reset, the laptop too."""
        if not self._over:
            if self._flow is not None:
                self._flow.reset()
            self._endpoint.reset()
            self._finish()

    def on_opened(self) -> None:
        assert self._flow is not None
        self._timer.cancel()
        self._opened = True
        self._on_open(self)
        self._flow.handler = self._splice.right
        self._splice.join(self._endpoint, self._flow)

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self._flow = None
        self.reset()

    def _look(self) -> None:
        """Give up when the laptop has been away for too long, or has not answered for much too long."""
        now = self._loop.time()
        away = self._away_since()
        end = self._begun + DIAL_SECONDS
        if away is not None:
            end = min(end, away + ABSENT_SECONDS)
        if now >= end:
            self.reset()
        else:
            self._timer = self._loop.call_at(min(end, now + ABSENT_SECONDS), self._look)

    def _away_since(self) -> float | None:
        """Since when nothing of the laptop is heard, as far as that concerns this caller; None: it is there."""
        link, flow = self._link, self._flow
        if link is None or flow is None:
            return self._asked
        if link.detached_at is not None:
            return max(link.detached_at, self._asked)
        return None if link.heard(flow) else self._asked

    def _open(self, link: Link) -> None:
        self._unlisten = None
        self._link = link
        self._asked = self._loop.time()
        self._flow = link.open(FlowKind.STREAM, self._body, self)

    def _ended(self, broken: Broken | None) -> None:
        """The splice is over, or the caller gave up before there was one."""
        if self._flow is not None and not self._opened:
            self._flow.reset()
        self._finish()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            if self._unlisten is not None:
                self._unlisten()
            self._on_end(self)


class UdpPort(asyncio.DatagramProtocol):
    """A UDP socket on an engaged port: an association, and a datagram flow, for every caller's address."""

    def __init__(self, key: PortKey, route: Route, sessions: Sessions) -> None:
        self._key = key
        self._route = route
        self._sessions = sessions
        self._associations: dict[Caller, UdpCaller] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Neither asyncio's own class nor uvloop's is a DatagramTransport by inheritance.
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._closed:
            self._transport.abort()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        caller = (str(addr[0]), int(addr[1]))
        association = self._associations.get(caller)
        if association is None:
            link = self._sessions.link(self._route.session)
            if link is None or len(self._associations) >= MAX_ASSOCIATIONS:
                return  # as a network would: dropped
            association = UdpCaller(self, caller, addr)
            self._associations[caller] = association
            body = inbound_open(self._key, self._route, caller)
            association.flow = link.open(FlowKind.DATAGRAM, body, association)
        association.received(data)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error about some earlier answer: nothing follows from it, the association expires by itself."""

    def send(self, data: memoryview, addr: tuple[str | int, ...]) -> None:
        """Send a datagram back to a caller."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def forget(self, caller: Caller) -> None:
        """An association is over."""
        self._associations.pop(caller, None)

    def close(self) -> None:
        """Close the socket, now or as soon as there is one, and end every association."""
        self._closed = True
        for association in list(self._associations.values()):
            association.end()
        if self._transport is not None:
            self._transport.close()


class UdpCaller(FlowHandler):
    """One caller of a UDP port."""

    def __init__(self, port: UdpPort, caller: Caller, addr: tuple[str | int, ...]) -> None:
        self._port = port
        self._caller = caller
        self._addr = addr
        self.flow: Flow | None = None
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(ASSOCIATION_SECONDS, self._expire)

    def received(self, data: bytes) -> None:
        """A datagram from the caller."""
        self._last = self._loop.time()
        if self.flow is not None:
            self.flow.send_datagram(memoryview(data))

    def on_datagram(self, data: memoryview) -> None:
        self._last = self._loop.time()
        self._port.send(data, self._addr)

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        """The caller's next datagrams are dropped for a moment: a storm of them must not become one of opens."""
        self.flow = None
        self._timer.cancel()
        self._timer = self._loop.call_later(ABSENT_SECONDS, self.end)

    def on_closed(self, broken: Broken | None) -> None:
        self.flow = None
        self.end()

    def end(self) -> None:
        """Forget the caller."""
        self._timer.cancel()
        self._port.forget(self._caller)
        if self.flow is not None:
            self.flow.reset()
            self.flow = None

    def _expire(self) -> None:
        left = self._last + ASSOCIATION_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._expire)
        else:
            self.end()
