"""Tries things at one port, and says what came of each: on a laptop, in a pod of the manager's image, or right here.

Standard input is a JSON object, `{"target": "HOST:PORT", "attempts": [ATTEMPT, ...]}`; standard output a JSON list
with one outcome for each attempt; all are made at once. What an attempt needs is in the function that it names.
Certificates are PEM; `expected` is the name that the server's certificate must have.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import grpc
import grpc.aio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, connect_stream
from tunnel.aio.link_client import LinkClient
from tunnel.endpoint import EndpointHandler, Refusal
from tunnel.mux import handshake
from tunnel.mux.errors import PeerLeft
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.handshake import Hello, Limits
from tunnel.mux.lane import Lane
from tunnel.mux.queries import Query
from tunnel.proto import agent_pb2, manager_pb2, open_pb2

TUNNEL = "/tpctl.tunnel.v1.Tunnel/Connect"
LIMIT = 15.0
"""Seconds for one attempt, besides what it is told to wait."""

ATTENDING = 1.5
"""Seconds in which the manager would tell an agent its grants."""

Outcome = dict[str, Any]


class Attempt(TypedDict, total=False):
    """What to try; `do` is the name of one of the functions below."""

    do: str
    key: str
    chain: str
    root: str
    expected: str
    session: str
    hold: float
    send: str
    engagement: str
    token: str
    report: dict[str, Any]
    dials: list[tuple[str, str, int]]
    inbound: list[tuple[str, int]]
    bodies: list[str]
    query: str


def _credentials(attempt: Attempt) -> tuple[grpc.ChannelCredentials, list[tuple[str, str | int]]]:
    """For a channel that shows the attempt's certificate, if it has one."""
    key, chain = attempt.get("key"), attempt.get("chain")
    credentials = grpc.ssl_channel_credentials(
        attempt["root"].encode(), key.encode() if key else None, chain.encode() if chain else None
    )
    name = ("grpc.ssl_target_name_override", attempt["expected"])
    return credentials, [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0), name]


def channel(target: str, attempt: Attempt) -> grpc.aio.Channel:
    """A channel as whoever the attempt's certificate names."""
    return grpc.aio.secure_channel(target, *_credentials(attempt))


async def plain(target: str, attempt: Attempt) -> Outcome:
    """Send `send` over bare TCP; what comes back until the other side closes, or for two seconds."""
    host, _, port = target.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        return {"code": "UNREACHABLE", "text": str(error)}
    received = b""
    try:
        writer.write(attempt["send"].encode())
        async with asyncio.timeout(2):
            while data := await reader.read(65536):
                received += data
        return {"code": "CLOSED", "received": received.hex()}
    except TimeoutError:
        return {"code": "OPEN", "received": received.hex()}
    except OSError as error:
        return {"code": "CLOSED", "text": str(error), "received": received.hex()}
    finally:
        writer.close()


async def tunnel(target: str, attempt: Attempt) -> Outcome:
    """Say hello as `session` on Tunnel.Connect; ANSWERED, and with `hold` how it ended within so many seconds."""
    return await asyncio.to_thread(_tunnel, target, attempt)


def _tunnel(target: str, attempt: Attempt) -> Outcome:
    hold = attempt.get("hold", 0.0)
    begun = time.monotonic()
    with _streaming(target, attempt, TUNNEL, _hello(attempt["session"]), hold or LIMIT) as call:
        try:
            handshake.parse(next(call))
            if hold:
                print("answered", file=sys.stderr, flush=True)  # noqa: T201  for whoever waits for it
                for _ in call:
                    pass
                return {"code": "ANSWERED", "ended": time.monotonic() - begun}
        except PeerLeft as left:
            return {"code": "GO_AWAY", "text": str(left)}
        except StopIteration:
            return {"code": "ENDED"}
        except grpc.RpcError:
            if not hold or call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return {"code": call.code().name, "text": call.details()}
            return {"code": "ANSWERED", "ended": time.monotonic() - begun}
    return {"code": "ANSWERED"}


@contextlib.contextmanager
def _streaming(target: str, attempt: Attempt, method: str, first: bytes, seconds: float) -> Iterator[Any]:
    """A call that stays open after its first message. Not of grpc.aio: where the server says no before that message is
    written, it tells only of an internal error."""
    ended = threading.Event()

    def requests() -> Iterator[Any]:
        yield first
        ended.wait()

    with grpc.secure_channel(target, *_credentials(attempt)) as opened:
        call: Any = opened.stream_stream(method)(requests(), metadata=_bearer(attempt), timeout=seconds)
        try:
            yield call
        finally:
            ended.set()
            call.cancel()


def _hello(session: str) -> bytes:
    return Hello(
        oldest=handshake.OLDEST,
        newest=handshake.NEWEST,
        software="raw",
        session=session,
        instance=os.urandom(handshake.INSTANCE_SIZE),
        peer_instance=b"",
        lane=Lane.INTERACTIVE,
        generation=1,
        received=0,
        limits=Limits(),
    ).encode()


async def environment(target: str, attempt: Attempt) -> Outcome:
    """Ask an agent for the environment of `engagement`."""
    async with channel(target, attempt) as opened:
        call: Any = opened.unary_unary(
            "/tpctl.agent.v1.Agent/GetEnvironment",
            request_serializer=agent_pb2.EnvironmentRequest.SerializeToString,
            response_deserializer=agent_pb2.EnvironmentResponse.FromString,
        )
        answer = await call(agent_pb2.EnvironmentRequest(engagement=attempt["engagement"]))
        return {"code": "ANSWERED", "variables": dict(answer.variables)}


async def watch(target: str, attempt: Attempt) -> Outcome:
    """Ask the manager what the cluster looks like."""
    async with channel(target, attempt) as opened:
        call: Any = opened.unary_stream(
            "/tpctl.manager.v1.Manager/WatchCluster",
            request_serializer=manager_pb2.WatchClusterRequest.SerializeToString,
            response_deserializer=manager_pb2.Cluster.FromString,
        )(manager_pb2.WatchClusterRequest(version="raw"))
        answer = await call.read()
        if not isinstance(answer, manager_pb2.Cluster):
            return {"code": (await call.code()).name, "text": await call.details()}
        return {"code": "ANSWERED", "namespaces": list(answer.namespaces)}


def _bearer(attempt: Attempt) -> tuple[tuple[str, str], ...]:
    token = attempt.get("token")
    return (("authorization", f"Bearer {token}"),) if token else ()


async def certify(target: str, attempt: Attempt) -> Outcome:
    """Ask the manager for an agent's certificate with `token`."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    async with channel(target, attempt) as opened:
        call: Any = opened.unary_unary(
            "/tpctl.manager.v1.AgentRegistry/Certify",
            request_serializer=manager_pb2.CertifyRequest.SerializeToString,
            response_deserializer=manager_pb2.CertifyResponse.FromString,
        )
        answer = await call(manager_pb2.CertifyRequest(public_key_pem=public), metadata=_bearer(attempt))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"code": "ANSWERED", "key": private.decode(), "chain": answer.certificate_chain_pem.decode()}


async def attend(target: str, attempt: Attempt) -> Outcome:
    """Report to the manager as the agent of the pod in `report`; what it grants within `ATTENDING`."""
    return await asyncio.to_thread(_attend, target, attempt)


def _attend(target: str, attempt: Attempt) -> Outcome:
    report = manager_pb2.AgentReport(**attempt["report"]).SerializeToString()
    with _streaming(target, attempt, "/tpctl.manager.v1.AgentRegistry/Attend", report, ATTENDING) as call:
        try:
            grants = manager_pb2.AgentGrants.FromString(next(call)).grants
        except grpc.RpcError:
            return {"code": call.code().name, "text": call.details()}
        return {"code": "ANSWERED", "grants": [grant.engagement for grant in grants]}


class _Try(FlowHandler):
    """A flow of ours, until it is opened or refused."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def on_opened(self) -> None:
        self._set({"code": "OPENED"})

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self._set({"code": refusal.name, "text": detail})

    def _set(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class _Listening:
    """Refuses what the peer opens, and remembers it."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        self.opened.append(body.hex())
        flow.refuse(Refusal.PROHIBITED, "only listening")
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


async def link(target: str, attempt: Attempt) -> Outcome:
    """Over a whole link of `session`: open `dials`, `inbound`, `bodies`; ask `query`; listen for `hold` seconds."""

    async def dial(lane: Lane) -> Any:
        return connect_stream(channel(target, attempt))

    listening = _Listening()
    client = LinkClient(dial=dial, session=attempt["session"], acceptor=listening, name="raw")
    running = asyncio.create_task(client.run(), name="raw link")
    try:
        await asyncio.wait_for(client.connected(), 6)
        loop = asyncio.get_running_loop()
        tries = []
        for kind, body in _bodies(attempt):
            handler = _Try()
            tries.append(handler)
            client.link.open(kind, body, handler)
        answered: asyncio.Future[bytes | None] = loop.create_future()
        client.link.query(bytes.fromhex(attempt.get("query", "")), answered.set_result)
        outcomes = await asyncio.gather(*(each.outcome for each in tries))
        answer = await answered
        await asyncio.sleep(attempt.get("hold", 0.0))
        return {
            "code": "ANSWERED",
            "opens": outcomes,
            "answer": answer.hex() if answer else "",
            "opened": listening.opened,
        }
    finally:
        running.cancel()
        await asyncio.wait([running])


def _bodies(attempt: Attempt) -> list[tuple[FlowKind, bytes]]:
    bodies = []
    for transport, address, port in attempt.get("dials", ()):
        kind = FlowKind.DATAGRAM if transport == "UDP" else FlowKind.STREAM
        packed = ipaddress.ip_address(address).packed
        dial = open_pb2.Dial(transport=open_pb2.Transport.Value(transport), address=packed, port=port)
        bodies.append((kind, open_pb2.Open(dial=dial).SerializeToString()))
    for engagement, port in attempt.get("inbound", ()):
        inbound = open_pb2.Inbound(
            transport=open_pb2.TCP,
            engagement=engagement,
            container_port=port,
            caller_address=b"\x7f\0\0\1",
            caller_port=1,
        )
        bodies.append((FlowKind.STREAM, open_pb2.Open(inbound=inbound).SerializeToString()))
    bodies += [(FlowKind.STREAM, bytes.fromhex(body)) for body in attempt.get("bodies", ())]
    return bodies


_ACTIONS = {each.__name__: each for each in (plain, tunnel, environment, watch, certify, attend, link)}


async def run(target: str, attempts: list[Attempt]) -> list[Outcome]:
    """All of them at once; the outcomes in their order."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(attempts)))
    return await asyncio.gather(*(_outcome(target, attempt) for attempt in attempts))


async def _outcome(target: str, attempt: Attempt) -> Outcome:
    try:
        async with asyncio.timeout(LIMIT + attempt.get("hold", 0.0)):
            return await _ACTIONS[attempt["do"]](target, attempt)
    except grpc.aio.AioRpcError as error:
        return {"code": error.code().name, "text": error.details()}
    except TimeoutError:
        return {"code": "TIMEOUT"}


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    json.dump(asyncio.run(run(wanted["target"], wanted["attempts"])), sys.stdout)
