"""The agents' port: certificates against a pod's token, and what each agent may serve."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from manager import pki
from manager.kube.tokens import NotAnAgent, ProvenPod, review
from manager.registry import Agents, Attendance
from tunnel.aio.grpc_stream import SERVER_OPTIONS
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError
from tunnel.proto import manager_pb2

log = logging.getLogger(__name__)

SERVICE = "tpctl.manager.v1.AgentRegistry"
REGISTRY_OPTIONS: list[tuple[str, Any]] = [
    *{
        **dict(SERVER_OPTIONS),
        # This port asks for no client certificate: a message is read before its sender is known.
        "grpc.max_receive_message_length": 64 << 10,
        "grpc.max_connection_idle_ms": 60_000,
        # Agents ping every ten seconds while nothing else travels; without this it would be too many after three.
        "grpc.http2.min_ping_interval_without_data_ms": 1_000,
    }.items()
]
"""Options for the server of this service."""
_BEARER = "Bearer "

Context = Any
"""grpc.aio.ServicerContext; its type parameters say nothing here."""


class AgentRegistry:
    """`tpctl.manager.v1.AgentRegistry`."""

    def __init__(self, api: Api, authority: pki.Authority, agents: Agents) -> None:
        self._api = api
        self._authority = authority
        self._agents = agents

    def handler(self) -> grpc.GenericRpcHandler:
        """For `server.add_generic_rpc_handlers`."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Certify": grpc.unary_unary_rpc_method_handler(
                    self.certify,
                    request_deserializer=manager_pb2.CertifyRequest.FromString,
                    response_serializer=manager_pb2.CertifyResponse.SerializeToString,
                ),
                "Attend": grpc.stream_stream_rpc_method_handler(
                    self.attend,
                    request_deserializer=manager_pb2.AgentReport.FromString,
                    response_serializer=manager_pb2.AgentGrants.SerializeToString,
                ),
            },
        )

    async def certify(self, request: manager_pb2.CertifyRequest, context: Context) -> manager_pb2.CertifyResponse:
        """Sign the agent's key for the pod that its token proves."""
        pod = await self._pod(context)
        try:
            leaf = self._authority.sign(
                Identity(Kind.AGENT, pod.uid), request.public_key_pem, pki.AGENT_LIFE, dt.datetime.now(dt.UTC)
            )
        except pki.BadKey as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        return manager_pb2.CertifyResponse(
            certificate_chain_pem=leaf.chain_pem,
            root_pem=self._authority.root_pem,
            expires_at=leaf.expires_at.timestamp(),
        )

    async def attend(self, requests: AsyncIterator[manager_pb2.AgentReport], context: Context) -> None:
        """Take the agent's report, then tell it its grants whenever they change, until it goes."""
        pod = await self._pod(context)
        first = await anext(requests, None)
        if first is None:
            return
        if first.pod_uid != pod.uid or not 0 < first.port < 65536:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the report is about another pod than the token")
        attendance = Attendance(pod.uid, pod.name, pod.namespace, _address(first.pod_address), first.port)
        log.info("agent of pod %s/%s attends", pod.namespace, pod.name)
        with self._agents.attend(attendance):
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(attendance, context), name=f"grants of {pod.name}")
                async for _ in requests:
                    pass  # nothing in a later report changes what is known
                telling.cancel()
        log.info("agent of pod %s/%s went", pod.namespace, pod.name)

    async def _tell(self, attendance: Attendance, context: Context) -> None:
        while True:
            await attendance.changed.wait()
            attendance.changed.clear()
            await context.write(attendance.grants)

    async def _pod(self, context: Context) -> ProvenPod:
        metadata = dict(context.invocation_metadata() or ())
        bearer = metadata.get("authorization", "")
        try:
            if not isinstance(bearer, str) or not bearer.startswith(_BEARER):
                raise NotAnAgent("there is no bearer token")
            return await review(self._api, bearer.removeprefix(_BEARER).strip())
        except NotAnAgent as error:
            log.warning("refused an agent at %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise
        except KubeError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the token cannot be checked now: {error}")
            raise


def _address(text: str) -> str:
    """A plain IP address; empty for anything else."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
