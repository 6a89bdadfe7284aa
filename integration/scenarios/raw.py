"""Parties that speak to the cluster, the manager and the agents by hand, as an intruder would."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from integration.cluster.cluster import Cluster
from tunnel.aio.byte_stream import StreamError
from tunnel.aio.grpc_stream import CHANNEL_OPTIONS, connect_stream
from tunnel.aio.link_client import LinkClient
from tunnel.endpoint import Refusal
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api, Object, from_kubeconfig
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link
from tunnel.mux.queries import Query
from tunnel.proto import agent_pb2, manager_pb2, open_pb2

TPCTL = "/apis/tpctl.io/v1alpha1"
WITHIN = 30.0
"""Seconds for anything to happen."""


def key_pair() -> tuple[bytes, str]:
    """A private key and its public key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public.decode()


def session_object(user: str, public_key: str = "none", **metadata: Any) -> Object:
    """A Session as a client writes it."""
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Session",
        "metadata": {"generateName": "raw-", **metadata},
        "spec": {"user": user, "client": {"host": "raw"}, "publicKey": public_key, "namespace": "default"},
    }


def engagement_object(
    user: str, session: Object, workload: str, container: str, *ports: int, **metadata: Any
) -> Object:
    """An Engagement as a client writes it."""
    owner = {key: session["metadata"][key] for key in ("namespace", "name", "uid")}
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Engagement",
        "metadata": {"generateName": "raw-", **metadata},
        "spec": {
            "user": user,
            "session": owner,
            "mode": "Replace",
            "workload": {"kind": "Deployment", "name": workload},
            "container": container,
            "ports": [{"containerPort": port, "protocol": "TCP"} for port in ports],
        },
    }


def server_of(cluster: Cluster) -> str:
    """The API server's address for this machine itself."""
    document = yaml.safe_load(cluster.admin_kubeconfig.read_text())
    return str(document["clusters"][0]["cluster"]["server"])


@asynccontextmanager
async def api_as(cluster: Cluster, user: str, folder: Path) -> AsyncIterator[Api]:
    """The API server as this user (`admin`: the cluster's administrator)."""
    path = cluster.admin_kubeconfig
    if user != "admin":
        path = folder / f"{user}.kubeconfig"
        path.write_text(cluster.kubeconfig(user, server=server_of(cluster)))
    async with await from_kubeconfig(os.environ, paths=[str(path)]) as api:
        yield api


async def settled(api: Api, path: str, phases: set[str]) -> Object:
    """The object once its phase is one of these."""
    async with asyncio.timeout(WITHIN):
        while True:
            item = await api.get(path)
            if (item.get("status") or {}).get("phase") in phases:
                return item
            await asyncio.sleep(0.05)


@asynccontextmanager
async def forwarded(cluster: Cluster, namespace: str, pod: str, port: int) -> AsyncIterator[int]:
    """A local port that leads to a port of a pod."""
    argv = [cluster.kubectl_program(), f"--kubeconfig={cluster.admin_kubeconfig}", f"--namespace={namespace}"]
    process = await asyncio.create_subprocess_exec(
        *argv, "port-forward", f"pod/{pod}", f":{port}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN):
            found = re.search(rb":(\d+) ->", await process.stdout.readline())
        assert found is not None
        yield int(found[1])
    finally:
        process.kill()
        await process.wait()


@dataclass(frozen=True)
class Party:
    """Whoever holds a key, and perhaps a certificate for it."""

    root: bytes
    key: bytes | None = None
    chain: bytes | None = None
    session: str = ""
    namespace: str = ""
    name: str = ""

    def channel(self, port: int, server: Identity) -> grpc.aio.Channel:
        """TLS to a local port behind which `server` is expected."""
        credentials = grpc.ssl_channel_credentials(self.root, self.key, self.chain)
        options = [*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server.dns)]
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


async def connected_party(api: Api, user: str, namespace: str) -> Party:
    """A user's own live session."""
    key, public = key_pair()
    created = await api.create(f"{TPCTL}/namespaces/{namespace}/sessions", session_object(user, public))
    name = created["metadata"]["name"]
    item = await settled(api, f"{TPCTL}/namespaces/{namespace}/sessions/{name}", {"Active", "Refused"})
    status = item["status"]
    assert status["phase"] == "Active", status
    return Party(status["root"].encode(), key, status["certificate"].encode(), item["metadata"]["uid"], namespace, name)


async def watch_cluster(party: Party, port: int, namespace: str) -> grpc.StatusCode:
    """How `WatchCluster` at the manager's sessions port goes."""
    channel = party.channel(port, Identity(Kind.MANAGER, namespace))
    call: Any = channel.unary_stream(
        "/tpctl.manager.v1.Manager/WatchCluster",
        request_serializer=manager_pb2.WatchClusterRequest.SerializeToString,
        response_deserializer=manager_pb2.Cluster.FromString,
    )(manager_pb2.WatchClusterRequest(), timeout=10)
    return await _outcome(call.read(), channel)


async def certify(root: bytes, port: int, namespace: str, token: str | None) -> grpc.StatusCode:
    """How asking for an agent's certificate goes, with this bearer token."""
    channel = Party(root).channel(port, Identity(Kind.MANAGER, namespace))
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    _, public = key_pair()
    call: Any = channel.unary_unary(
        "/tpctl.manager.v1.AgentRegistry/Certify",
        request_serializer=manager_pb2.CertifyRequest.SerializeToString,
        response_deserializer=manager_pb2.CertifyResponse.FromString,
    )(manager_pb2.CertifyRequest(public_key_pem=public.encode()), metadata=metadata, timeout=10)
    return await _outcome(call, channel)


async def environment(party: Party, port: int, pod_uid: str, engagement: str) -> grpc.StatusCode:
    """How asking an agent for an engagement's environment goes."""
    channel = party.channel(port, Identity(Kind.AGENT, pod_uid))
    call: Any = channel.unary_unary(
        "/tpctl.agent.v1.Agent/GetEnvironment",
        request_serializer=agent_pb2.EnvironmentRequest.SerializeToString,
        response_deserializer=agent_pb2.EnvironmentResponse.FromString,
    )(agent_pb2.EnvironmentRequest(engagement=engagement), timeout=10)
    return await _outcome(call, channel)


async def lets_in(party: Party, port: int, server: Identity) -> bool:
    """Whether the tunnel answers this party at all (to garbage: with a go-away)."""
    stream = connect_stream(party.channel(port, server))
    try:
        await stream.write(b"garbage")
        return await asyncio.wait_for(stream.read(), WITHIN) is not None
    except StreamError:
        return False
    finally:
        await stream.close()


async def _outcome(answer: Any, channel: grpc.aio.Channel) -> grpc.StatusCode:
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        await channel.close()
    return grpc.StatusCode.OK


class Closed:
    """A laptop at which nothing can be opened."""

    def on_open(self, flow: Flow, body: bytes) -> FlowHandler:
        flow.refuse(Refusal.PROHIBITED)
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


@asynccontextmanager
async def linked(party: Party, port: int, server: Identity, acceptor: Acceptor | None = None) -> AsyncIterator[Link]:
    """A link of this party to a manager or agent."""

    async def dial(lane: Lane) -> Any:
        return connect_stream(party.channel(port, server))

    client = LinkClient(dial=dial, session=party.session, acceptor=acceptor or Closed(), name="raw")
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(client.run(), name="raw link")
        stack.callback(running.cancel)
        await asyncio.wait_for(client.connected(), WITHIN)
        yield client.link


class _Opening(FlowHandler):
    def __init__(self, done: Callable[[Refusal | None], None]) -> None:
        self._done = done

    def on_opened(self) -> None:
        self._done(None)

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self._done(refusal)


async def opened(link: Link, address: str, port: int) -> Refusal | None:
    """Why an address cannot be dialled; None when it can."""
    outcome: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
    dial = open_pb2.Dial(transport=open_pb2.TCP, address=ipaddress.ip_address(address).packed, port=port)
    flow = link.open(FlowKind.STREAM, open_pb2.Open(dial=dial).SerializeToString(), _Opening(outcome.set_result))
    result = await asyncio.wait_for(outcome, WITHIN)
    flow.reset()
    return result
