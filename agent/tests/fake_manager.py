"""The manager's agents port with a real TLS server: it certifies whoever shows the right token and grants as told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from tunnel.identity import Identity, Kind
from tunnel.proto.manager_pb2 import AgentGrants, AgentReport, CertifyRequest, CertifyResponse
from tunnel.testing.certificates import FakeAuthority

NAMESPACE = "tpctl-system"
POD_UID = "11111111-2222-3333-4444-555555555555"


class FakeManager:
    """Serves one agent. `token` is what the agent must show."""

    life = 3600.0
    """Seconds that certificates are said to live."""

    def __init__(self, authority: FakeAuthority, token: str = "token-1") -> None:
        self.authority = authority
        self.token = token
        self.certified = 0
        self.reports: list[AgentReport] = []
        self._grants = AgentGrants(lease_seconds=300)
        self._changed = asyncio.Event()
        self._dropped = False
        self.attending = asyncio.Event()
        self.port = 0

    def grant(self, grants: AgentGrants) -> None:
        """What the agent may do from now on."""
        self._grants = grants
        self._changed.set()

    def drop(self) -> None:
        """End the agent's stream once."""
        self._dropped = True
        self._changed.set()

    @asynccontextmanager
    async def serve(self, port: int = 0, identity: Identity | None = None) -> AsyncIterator[None]:
        """Serve on 127.0.0.1, as this identity, until the block ends."""
        holder = self.authority.issue(identity or Identity(Kind.MANAGER, NAMESPACE))
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._handler(),))
        credentials = grpc.ssl_server_credentials([(holder.key_pem, holder.chain_pem)])
        self.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    def _handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "tpctl.manager.v1.AgentRegistry",
            {
                "Certify": grpc.unary_unary_rpc_method_handler(
                    self._certify, CertifyRequest.FromString, CertifyResponse.SerializeToString
                ),
                "Attend": grpc.stream_stream_rpc_method_handler(
                    self._attend, AgentReport.FromString, AgentGrants.SerializeToString
                ),
            },
        )

    async def _check(self, context: grpc.aio.ServicerContext[object, object]) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if metadata.get("authorization") != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")

    async def _certify(
        self, request: CertifyRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> CertifyResponse:
        await self._check(context)
        self.certified += 1
        return CertifyResponse(
            certificate_chain_pem=self.authority.sign(Identity(Kind.AGENT, POD_UID), request.public_key_pem),
            root_pem=self.authority.root_pem,
            expires_at=time.time() + self.life,
        )

    async def _attend(
        self, reports: AsyncIterator[AgentReport], context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[AgentGrants]:
        await self._check(context)
        self.reports.append(await anext(reports))
        self.attending.set()
        try:
            while True:
                self._changed.clear()
                yield self._grants
                await self._changed.wait()
                if self._dropped:
                    self._dropped = False
                    return
        finally:
            self.attending.clear()
