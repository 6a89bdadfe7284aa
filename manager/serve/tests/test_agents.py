"""The agents' port over loopback: a token that proves a pod gets a certificate and grants, for that pod only."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manager import pki
from manager.config import TOKEN_AUDIENCE
from manager.kube import paths
from manager.registry import Agents
from manager.serve.agents import REGISTRY_OPTIONS, SERVICE, AgentRegistry
from tunnel.identity import Identity, Kind, identify
from tunnel.kube.api import Api
from tunnel.kube.kubeconfig import Credentials
from tunnel.proto import manager_pb2

POD = "uid-1"
GOOD = "token-of-the-pod"


async def _review(request: web.Request) -> web.Response:
    """TokenReview: knows one token of a pod, one of another audience, one of a person."""
    token = (await request.json())["spec"]["token"]
    extra = {"authentication.kubernetes.io/pod-name": ["echo-1"], "authentication.kubernetes.io/pod-uid": [POD]}
    pods = {"username": "system:serviceaccount:shop:default", "extra": extra}
    statuses = {
        GOOD: {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": pods},
        "of-another-audience": {"authenticated": True, "audiences": ["vault"], "user": pods},
        "of-a-person": {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": {"username": "alice"}},
        "of-no-pod": {"authenticated": True, "audiences": [TOKEN_AUDIENCE], "user": {**pods, "extra": {}}},
    }
    return web.json_response({"status": statuses.get(token, {"authenticated": False})}, status=201)


class Port:
    """A running agents' port, and an agent that calls it. TLS is left out: it proves the manager only."""

    def __init__(self, api: Api) -> None:
        now = dt.datetime.now(dt.UTC)
        self.authority = pki.Authority(pki.make_root("ns", now), now)
        self.agents = Agents()
        self.server = grpc.aio.server(options=REGISTRY_OPTIONS)
        self.server.add_generic_rpc_handlers((AgentRegistry(api, self.authority, self.agents).handler(),))
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.channel = grpc.aio.insecure_channel(self.target)

    async def certify(self, public_key: bytes, token: str | None) -> manager_pb2.CertifyResponse:
        """Raises AioRpcError."""
        call = self.channel.unary_unary(
            f"/{SERVICE}/Certify",
            request_serializer=manager_pb2.CertifyRequest.SerializeToString,
            response_deserializer=manager_pb2.CertifyResponse.FromString,
        )
        request = manager_pb2.CertifyRequest(public_key_pem=public_key)
        return await call(request, timeout=10, metadata=_metadata(token))

    def attend(self, token: str | None = GOOD) -> Any:
        """A stream of reports and grants."""
        call = self.channel.stream_stream(
            f"/{SERVICE}/Attend",
            request_serializer=manager_pb2.AgentReport.SerializeToString,
            response_deserializer=manager_pb2.AgentGrants.FromString,
        )
        return call(timeout=10, metadata=_metadata(token))


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token is not None else ()


def _report(pod: str = POD, port: int = 9900) -> manager_pb2.AgentReport:
    return manager_pb2.AgentReport(
        pod_uid=pod, pod_name="forged", namespace="forged", pod_address="10.0.0.7", port=port
    )


def _public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@contextlib.asynccontextmanager
async def _port(server: str) -> AsyncIterator[Port]:
    application = web.Application()
    application.router.add_post(paths.TOKEN_REVIEWS, _review)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = server or f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with Api(Credentials(context="", namespace="", server=server)) as api:
        port = Port(api)
        await port.server.start()
        try:
            yield port
        finally:
            await port.channel.close()
            await port.server.stop(None)
            await runner.cleanup()


def _run(test: Callable[[Port], Awaitable[None]], server: str = "") -> None:
    """With an API server of the test's own, or with this one."""

    async def body() -> None:
        async with asyncio.timeout(20), _port(server) as port:
            await test(port)

    asyncio.run(body())


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # it happens in another task, which tells nobody
        await asyncio.sleep(0.005)


def test_the_certificate_names_the_pod_of_the_token() -> None:
    async def test(port: Port) -> None:
        answer = await port.certify(_public_key(), GOOD)
        leaf = x509.load_pem_x509_certificates(answer.certificate_chain_pem)[0]
        assert identify(leaf.public_bytes(serialization.Encoding.PEM), Kind.AGENT).identity == Identity(Kind.AGENT, POD)
        assert answer.root_pem == port.authority.root_pem
        assert answer.expires_at == pytest.approx(leaf.not_valid_after_utc.timestamp(), abs=1)

    _run(test)


@pytest.mark.parametrize("token", [None, "", "nonsense", "of-another-audience", "of-a-person", "of-no-pod"])
def test_without_a_pods_token_there_is_nothing(token: str | None) -> None:
    async def test(port: Port) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await port.certify(_public_key(), token)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        stream = port.attend(token)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert port.agents.uids() == frozenset()

    _run(test)


def test_a_bad_key_is_refused() -> None:
    async def test(port: Port) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await port.certify(b"no key", GOOD)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    _run(test)


def test_an_api_server_that_is_away_is_no_refusal() -> None:
    async def test(port: Port) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await port.certify(_public_key(), GOOD)
        assert away.value.code() is grpc.StatusCode.UNAVAILABLE

    _run(test, server="http://127.0.0.1:1")


def test_grants_come_when_they_change_until_the_agent_goes() -> None:
    async def test(port: Port) -> None:
        stream = port.attend()
        await stream.write(_report())
        await _until(lambda: port.agents[POD] is not None)
        attendance = port.agents[POD]
        assert attendance is not None
        told = (attendance.pod_name, attendance.namespace, attendance.address, attendance.port)
        assert told == ("echo-1", "shop", "10.0.0.7", 9900)  # name and namespace are the token's, not the report's
        for lease in (5, 6):
            attendance.offer(manager_pb2.AgentGrants(lease_seconds=lease))
            assert (await stream.read()).lease_seconds == lease
        stream.cancel()
        await _until(lambda: port.agents[POD] is None)

    _run(test)


def test_agents_may_ping_while_nothing_else_travels() -> None:
    async def test(port: Port) -> None:
        options = [("grpc.keepalive_time_ms", 1100), ("grpc.http2.max_pings_without_data", 0)]
        async with grpc.aio.insecure_channel(port.target, options=options) as port.channel:
            stream = port.attend()
            await stream.write(_report())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.read(), 6.5)  # time for more pings than are forgiven

    _run(test)


@pytest.mark.parametrize("report", [_report("another"), _report(port=0), _report(port=70000)])
def test_a_report_about_another_pod_is_refused(report: manager_pb2.AgentReport) -> None:
    async def test(port: Port) -> None:
        stream = port.attend()
        await stream.write(report)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert port.agents.uids() == frozenset()

    _run(test)
