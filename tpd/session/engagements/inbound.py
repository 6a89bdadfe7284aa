"""Calls that an agent sends to this laptop: dialled to the engaged port's own target, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tpd.session.engagements.targets import Target, Targets
from tunnel.aio.socket_endpoint import Refused, dial_tcp
from tunnel.aio.tasks import Tasks
from tunnel.aio.udp_endpoint import UdpEndpoint, dial_udp
from tunnel.endpoint import Broken, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.queries import Query
from tunnel.splice import Splice

DIAL_LIMIT = 10.0
"""Seconds for a local process to accept; it may be behind a firewall when `--address` is another host."""


class InboundAcceptor:
    """Acceptor of the link to one agent. `served()`: the engagements that this agent serves now."""

    def __init__(self, targets: Targets, served: Callable[[], Collection[str]], tasks: Tasks) -> None:
        self._targets = targets
        self._served = served
        self._tasks = tasks

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        """A caller of an engaged port, or something that the agent may not open."""
        found = self._targets.find(body, self._served())
        if found is None or (found[0].protocol == "UDP") is not (flow.kind is FlowKind.DATAGRAM):
            flow.refuse(Refusal.PROHIBITED, "not an engaged port")
            return FlowHandler()
        if flow.kind is FlowKind.DATAGRAM:
            return _UdpCall(flow, found[0], self._tasks)
        return _TcpCall(flow, found[0], self._tasks)

    def on_query(self, query: Query) -> None:
        """Agents have nothing to ask."""
        query.reply(b"")


class _TcpCall(FlowHandler):
    """A caller that waits for the local process; then a splice takes over."""

    def __init__(self, flow: Flow, target: Target, tasks: Tasks) -> None:
        self._flow = flow
        self._task = tasks.spawn(self._dial(target), name=f"inbound.{target}")

    async def _dial(self, target: Target) -> None:
        flow = self._flow
        try:
            endpoint = await dial_tcp(target.address, target.port, DIAL_LIMIT)
        except Refused as refused:
            flow.refuse(refused.refusal, f"{target}: {refused.detail}")
            return
        splice = Splice()
        flow.handler = splice.right
        splice.join(endpoint, flow)
        flow.accept()
        endpoint.start(splice.left)

    def on_closed(self, broken: Broken | None) -> None:
        """The caller gave up."""
        self._task.cancel()


class _UdpCall(FlowHandler):
    """One caller's datagrams, through a socket of its own."""

    def __init__(self, flow: Flow, target: Target, tasks: Tasks) -> None:
        self._flow = flow
        self._endpoint: UdpEndpoint | None = None
        self._task = tasks.spawn(self._dial(target), name=f"inbound.{target}")

    async def _dial(self, target: Target) -> None:
        try:
            self._endpoint = await dial_udp(target.address, target.port, _TowardsCaller(self._flow))
        except Refused as refused:
            self._flow.refuse(refused.refusal, f"{target}: {refused.detail}")
            return
        self._flow.accept()

    def on_datagram(self, data: memoryview) -> None:
        if self._endpoint is not None:
            self._endpoint.send_datagram(data)

    def on_closed(self, broken: Broken | None) -> None:
        """The association expired on the agent's side."""
        self._task.cancel()
        if self._endpoint is not None:
            self._endpoint.close()


class _TowardsCaller:
    """What the local process sends."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def on_datagram(self, data: memoryview) -> None:
        self._flow.send_datagram(bytes(data))

    def on_refused(self, refusal: Refusal) -> None:
        """Nobody listens now; a datagram later may find somebody."""

    def on_expired(self) -> None:
        self._flow.reset()
