"""What one session's link may open: addresses of the cluster, dialled from here; and names, asked from here."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from collections.abc import Callable

from google.protobuf.message import DecodeError

from manager.serve.dns import ClusterDns
from manager.state.dialpolicy import Address, DialPolicy
from manager.state.model import Session
from tunnel.aio.socket_endpoint import Refused, SocketEndpoint, dial_tcp
from tunnel.aio.tasks import Tasks
from tunnel.aio.udp_endpoint import UdpEndpoint, dial_udp
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.queries import Query
from tunnel.mux.window import Budget
from tunnel.proto import open_pb2
from tunnel.splice import Splice

DIAL_LIMIT = 10.0
"""Seconds until an address that does not answer counts as unreachable."""
BUSY_PAUSE = 0.25
"""Seconds between tries while this pod has no port or descriptor left for a connection."""

_KINDS = {open_pb2.TCP: FlowKind.STREAM, open_pb2.UDP: FlowKind.DATAGRAM}


class SessionAcceptor:
    """Answers one link's opens and queries. `session()` is the session as it is now; None once it has ended. `budget`:
    what the connections may hold."""

    def __init__(
        self, session: Callable[[], Session | None], policy: DialPolicy, dns: ClusterDns, tasks: Tasks, budget: Budget
    ) -> None:
        self._session = session
        self._policy = policy
        self._dns = dns
        self._tasks = tasks
        self._budget = budget

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        """Dial what the body names, or refuse."""
        target = _target(body, flow.kind)
        if target is None:
            flow.refuse(Refusal.PROHIBITED, "a laptop can only dial addresses here")
            return FlowHandler()
        address, port = target
        why = "the session has ended" if self._session() is None else self._policy.refusal(address)
        if why is not None:
            flow.refuse(Refusal.PROHIBITED, why)
            return FlowHandler()
        if flow.kind is FlowKind.STREAM:
            dialling = _Dialling()
            dial = _dial(flow, str(address), port, self._budget)
            dialling.task = self._tasks.spawn(dial, name=f"dial {address}:{port}")
            return dialling
        association = _Association(flow)
        association.task = self._tasks.spawn(association.open(str(address), port), name=f"udp {address}:{port}")
        return association

    def on_query(self, query: Query) -> None:
        """Ask the cluster's DNS as the connected namespace sees it."""
        session = self._session()
        if session is None:
            query.reply(b"")
            return
        answering = self._dns.answer(query.message, session.connected_namespace)
        task = self._tasks.spawn(answering, name="dns query")
        task.add_done_callback(functools.partial(_reply, query))


def _reply(query: Query, task: asyncio.Task[bytes]) -> None:
    query.reply(b"" if task.cancelled() or task.exception() is not None else task.result())


def _target(body: bytes, kind: FlowKind) -> tuple[Address, int] | None:
    try:
        dial = open_pb2.Open.FromString(body).dial
        if _KINDS.get(dial.transport) is not kind or not 0 < dial.port < 65536:
            return None
        return ipaddress.ip_address(dial.address), dial.port
    except (DecodeError, ValueError):
        return None


class _Dialling(FlowHandler):
    """The flow's handler until the far side is connected; the opener sends nothing before."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    def on_closed(self, broken: Broken | None) -> None:
        """The laptop gave up."""
        if self.task is not None:
            self.task.cancel()


async def _dial(flow: Flow, host: str, port: int, budget: Budget) -> None:
    try:
        endpoint = await _patiently(host, port, budget)
    except Refused as refused:
        flow.refuse(refused.refusal, refused.detail)
        return
    splice = Splice()
    flow.handler = splice.left
    flow.accept()
    splice.join(flow, endpoint)
    endpoint.start(splice.right)


async def _patiently(host: str, port: int, budget: Budget) -> SocketEndpoint:
    """Dial; when this pod is out of local ports or descriptors, wait for some to come free."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DIAL_LIMIT
    while True:
        try:
            return await dial_tcp(host, port, deadline - loop.time(), budget)
        except Refused as refused:
            if refused.refusal is not Refusal.BUSY or loop.time() + BUSY_PAUSE >= deadline:
                raise
        await asyncio.sleep(BUSY_PAUSE)


class _Association(FlowHandler):
    """A UDP association: the flow on one side, a socket on the other. Datagrams before the socket is there are kept."""

    _MOST_EARLY = 64

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._socket: UdpEndpoint | None = None
        self._early: list[memoryview] = []
        self.task: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Make the socket."""
        try:
            socket = await dial_udp(host, port, _FromSocket(self._flow, self.close))
        except Refused as refused:
            self._flow.refuse(refused.refusal, refused.detail)
            return
        self._socket = socket
        self._flow.accept()
        early, self._early = self._early, []
        for data in early:
            socket.send_datagram(data)

    def on_datagram(self, data: memoryview) -> None:
        """From the laptop."""
        if self._socket is not None:
            self._socket.send_datagram(data)
        elif len(self._early) < self._MOST_EARLY:
            self._early.append(data)

    def on_closed(self, broken: Broken | None) -> None:
        """The laptop ended it."""
        if self.task is not None:
            self.task.cancel()
        self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _FromSocket:
    """The other direction."""

    def __init__(self, flow: Flow, close: Callable[[], None]) -> None:
        self._flow = flow
        self._close = close

    def on_datagram(self, data: memoryview) -> None:
        """From the cluster."""
        self._flow.send_datagram(data)

    def on_refused(self, refusal: Refusal) -> None:
        """No datagram gets there now; the laptop's stack says so to the program."""
        self._close()
        self._flow.break_off(Broken.REFUSED if refusal is Refusal.REFUSED else Broken.RESET)

    def on_expired(self) -> None:
        """Idle for too long."""
        self._flow.reset()
