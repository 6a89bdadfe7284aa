"""What the agent serves to laptops: the tunnel, and the environment. Mutual TLS, and nothing without a grant."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc

from agent.decide import NOTHING, Decision, Route
from agent.environment import container_environment
from agent.registry import Credentials
from tunnel.agentconfig import AgentConfig
from tunnel.aio.byte_stream import ByteStream
from tunnel.aio.grpc_stream import SERVER_OPTIONS, tunnel_rpc_handler
from tunnel.aio.link_server import LinkServer
from tunnel.aio.server_credentials import Material, renewable_credentials
from tunnel.endpoint import EndpointHandler, Refusal
from tunnel.identity import Kind, NotTrusted, Proven, identify_peer
from tunnel.memory import budget, memory_limit
from tunnel.mux.flow import Flow, FlowHandler
from tunnel.mux.link import Link
from tunnel.mux.queries import Query
from tunnel.proto.agent_pb2 import EnvironmentRequest, EnvironmentResponse

GRANT_SECONDS = 2.0
"""How long a session may be ahead of its grant: laptop and agent hear of an engagement independently."""
OWN = 72 << 20
"""Bytes the process takes without flows."""
MAX_AHEAD = 64
"""Calls that may wait for that at once."""

log = logging.getLogger("agent.server")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class NothingInside:
    """Answers a session that wants to reach something through the agent: it may not."""

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        flow.refuse(Refusal.PROHIBITED, "the agent opens nothing for a session")
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class SessionLinks:
    """The sessions' links, for inbound traffic (`agent.inbound.Sessions`)."""

    def __init__(self) -> None:
        self.server = LinkServer(
            make_acceptor=_nothing_inside, on_attached=self._attached, name="agent", budget=budget(memory_limit(), OWN)
        )
        self._waiting: dict[str, dict[object, Callable[[Link], None]]] = {}

    def link(self, session: str) -> Link | None:
        """The session's link, also while it is detached; None when it has none."""
        return self.server.link(session)

    def attached(self, session: str) -> bool:
        """Whether the link has a carrier now."""
        link = self.server.link(session)
        return link is not None and link.attached

    def when_linked(self, session: str, call: Callable[[Link], None]) -> Callable[[], None]:
        """Call once the session has a link; the result takes that back."""
        token = object()
        self._waiting.setdefault(session, {})[token] = call

        def take_back() -> None:
            waiting = self._waiting.get(session, {})
            waiting.pop(token, None)
            if not waiting:
                self._waiting.pop(session, None)

        return take_back

    def _attached(self, session: str, link: Link, attached: bool) -> None:
        if attached:
            for call in self._waiting.pop(session, {}).values():
                call(link)


def _nothing_inside(session: str, link: Link) -> NothingInside:
    return NothingInside()


class AgentServer:
    """The gRPC server of one agent. `environ` is the agent's own environment."""

    def __init__(self, config: AgentConfig, environ: Mapping[str, str]) -> None:
        self._containers = {container.name: container for container in config.replaced}
        self._environ = environ
        self._decision: Decision = NOTHING
        self._changed = asyncio.Event()
        self._ahead = 0
        self.links = SessionLinks()
        self._credentials: Credentials | None = None
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                tunnel_rpc_handler(self._connect),
                grpc.method_handlers_generic_handler(
                    "tpctl.agent.v1.Agent",
                    {
                        "GetEnvironment": grpc.unary_unary_rpc_method_handler(
                            self._get_environment,
                            EnvironmentRequest.FromString,
                            EnvironmentResponse.SerializeToString,
                        )
                    },
                ),
            )
        )

    def use(self, credentials: Credentials) -> None:
        """Show this certificate, and trust this root, in every handshake from now on."""
        self._credentials = credentials

    def allow(self, decision: Decision) -> None:
        """What sessions may do from now on. The links of sessions that may do nothing end."""
        gone = self._decision.sessions - decision.sessions
        self._decision = decision
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for session in gone:
            log.info("the grant of session %s has ended", session)
            self.links.server.end_session(session)

    async def start(self, port: int) -> int:
        """Serve on all addresses, with the credentials given to `use`; returns the port. Raises RuntimeError."""
        credentials = renewable_credentials(self._material, require_client=True)
        bound = self._server.add_secure_port(f"[::]:{port}", credentials)
        await self._server.start()
        return bound

    async def stop(self, grace: float) -> None:
        """Stop, after `grace` seconds for calls under way; laptops are told to come again, to whoever follows."""
        self.links.server.close()
        await self._server.stop(grace)

    def _material(self) -> Material:
        credentials = self._credentials
        assert credentials is not None, "use() comes first"
        return credentials.key, credentials.chain, credentials.root

    async def _connect(self, stream: ByteStream, context: Context) -> None:
        proven = await self._prove(context)
        session = proven.identity.id
        if not await self._granted(lambda decision: session in decision.sessions):
            log.warning("refused a link of session %s: no grant", session)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "This session engages nothing in this pod.")
        # With its certificate the stream ends, in order: the laptop comes again with the next one.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(proven.expires_at - time.time(), 0.0)):
                await self.links.server.serve(stream, session)

    async def _get_environment(self, request: EnvironmentRequest, context: Context) -> EnvironmentResponse:
        proven = await self._prove(context)
        route = Route(proven.identity.id, request.engagement)
        if not await self._granted(lambda decision: route in decision.containers):
            log.warning("refused session %s the environment of engagement %r", route.session, route.engagement)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "This session has no such engagement in this pod.")
        container = self._containers[self._decision.containers[route]]
        return EnvironmentResponse(variables=container_environment(self._environ, container))

    async def _prove(self, context: Context) -> Proven:
        try:
            proven = identify_peer(context.auth_context(), Kind.SESSION)
        except NotTrusted as error:
            log.warning("refused %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Only sessions of this traffic-manager are served.")
            raise
        if proven.expires_at <= time.time():  # after the handshake, on a connection that stayed open
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The session's certificate has expired.")
        return proven

    async def _granted(self, holds: Callable[[Decision], bool]) -> bool:
        """Whether the decision allows it, now or within GRANT_SECONDS."""
        if holds(self._decision) or self._ahead >= MAX_AHEAD:
            return holds(self._decision)
        self._ahead += 1
        try:
            async with asyncio.timeout(GRANT_SECONDS):
                while not holds(self._decision):
                    await self._changed.wait()
        except TimeoutError:
            return False
        finally:
            self._ahead -= 1
        return True
