"""The engaged ports: a socket for every port that a grant gives to a session, and none for any other.

Without a listener the kernel refuses callers, as it does for a container that does not listen yet. The same holds for
the readiness probe, whose port is open while the agent serves anybody, with ports or without.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from agent.decide import NOTHING, Decision, PortKey, Route
from agent.inbound import MAX_WAITING, Sessions, TcpCaller, UdpPort, inbound_open
from tunnel.aio.socket_endpoint import BoundedSocketEndpoint, SocketEndpoint
from tunnel.mux.window import Budget

AGAIN_SECONDS = 5.0
"""Between attempts to take a port that something else in the pod has."""
BACKLOG = 1024
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

_PROBE = Route("", "")
"""Stands for the kubelet; no grant makes a route without a session."""

log = logging.getLogger("agent.listeners")


class Listeners:
    """Keeps the sockets as the decision wants them. `run` does the work, `want` says what to do.

    `budget`: what the connections may hold. `ready_port`: where the readiness probe connects.
    """

    def __init__(self, sessions: Sessions, budget: Budget, ready_port: int) -> None:
        self._sessions = sessions
        self._budget = budget
        self._ready = PortKey("TCP", ready_port)
        self._wanted: Mapping[PortKey, Route] = {}
        self._open: dict[PortKey, _TcpServer | _UdpPort] = {}
        self._changed = asyncio.Event()

    def want(self, decision: Decision) -> None:
        """What to listen on from now on. A port whose route has ended closes at once, with its connections."""
        self._wanted = dict(decision.routes)
        if decision.containers:
            self._wanted.setdefault(self._ready, _PROBE)  # the last, when the others are open
        for key, port in list(self._open.items()):
            if self._wanted.get(key) != port.route:
                del self._open[key]
                port.close()
                log.info("stopped listening on %s port %d", key.protocol, key.port)
        self._changed.set()

    async def run(self) -> None:
        """Open what is wanted and not open, until cancelled; then close everything."""
        try:
            while True:
                self._changed.clear()
                failed = False
                for key, route in dict(self._wanted).items():
                    if key not in self._open and self._wanted.get(key) == route:
                        failed |= not await self._listen(key, route)
                try:
                    async with asyncio.timeout(AGAIN_SECONDS if failed else None):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            self.want(NOTHING)

    async def _listen(self, key: PortKey, route: Route) -> bool:
        port: _TcpServer | _UdpPort
        if route is _PROBE:
            port = _ReadyPort(key, route)
        elif key.protocol == "TCP":
            port = _TcpPort(key, route, self._sessions, self._budget)
        else:
            port = _UdpPort(key, route, self._sessions)
        try:
            await port.open()
            if self._wanted.get(key) == route:
                self._open[key] = port
                log.info("listening on %s port %d for %s", key.protocol, key.port, route.session or "the probe")
        except OSError as error:
            log.error("cannot listen on %s port %d: %s", key.protocol, key.port, error.strerror or error)
            return False
        finally:
            if self._open.get(key) is not port:
                port.close()
        return True


class _TcpServer:
    """A TCP port on every address of the pod."""

    def __init__(self, key: PortKey, route: Route) -> None:
        self._key = key
        self.route = route
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        with _bound_sockets(socket.SOCK_STREAM, self._key.port) as sockets:
            while sockets:
                server = await loop.create_server(self._accepting, sock=sockets[0], backlog=BACKLOG)
                self._servers.append(server)
                del sockets[0]

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.close()

    def _accepting(self) -> asyncio.BaseProtocol:
        raise NotImplementedError


class _ReadyPort(_TcpServer):
    """The port of the readiness probe: a connection is all that it asks for."""

    def _accepting(self) -> asyncio.BaseProtocol:
        return _HangUp()


class _HangUp(asyncio.Protocol):
    """Ends a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _TcpPort(_TcpServer):
    """An engaged TCP port, and the connections that came through it."""

    def __init__(self, key: PortKey, route: Route, sessions: Sessions, budget: Budget) -> None:
        super().__init__(key, route)
        self._sessions = sessions
        self._budget = budget
        self._waiting: set[TcpCaller] = set()
        self._joined: set[TcpCaller] = set()

    def close(self) -> None:
        """Stop listening, reset every connection."""
        super().close()
        for caller in [*self._waiting, *self._joined]:
            caller.reset()

    def _accepting(self) -> SocketEndpoint:
        return BoundedSocketEndpoint(self._accepted, self._budget)

    def _accepted(self, endpoint: SocketEndpoint) -> None:
        peer = endpoint.peername
        if peer is None or len(self._waiting) >= MAX_WAITING:
            endpoint.reset()
            return
        body = inbound_open(self._key, self.route, peer)
        caller = TcpCaller(endpoint, body, self._sessions, self.route.session, self._opened, self._ended)
        self._waiting.add(caller)
        caller.start()

    def _opened(self, caller: TcpCaller) -> None:
        self._waiting.discard(caller)
        self._joined.add(caller)

    def _ended(self, caller: TcpCaller) -> None:
        self._waiting.discard(caller)
        self._joined.discard(caller)


class _UdpPort:
    """An engaged UDP port, on every address of the pod."""

    def __init__(self, key: PortKey, route: Route, sessions: Sessions) -> None:
        self._key = key
        self.route = route
        self._sessions = sessions
        self._ports: list[UdpPort] = []

    async def open(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        with _bound_sockets(socket.SOCK_DGRAM, self._key.port) as sockets:
            while sockets:
                # Ours before the loop has it: a cancellation now must not leave a transport that nobody closes.
                self._ports.append(UdpPort(self._key, self.route, self._sessions))
                await loop.create_datagram_endpoint(lambda: self._ports[-1], sock=sockets.pop(0))

    def close(self) -> None:
        """Stop listening, end every association."""
        for port in self._ports:
            port.close()


@contextmanager
def _bound_sockets(kind: socket.SocketKind, port: int) -> Iterator[list[socket.socket]]:
    """One socket for each family the pod has, on all its addresses. Whoever takes one over removes it from the list;
    the others are closed at the end. Raises OSError."""
    sockets: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            try:
                sockets.append(_bound_socket(family, kind, address, port))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
        yield sockets
    finally:
        for left in sockets:
            left.close()


def _bound_socket(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound
