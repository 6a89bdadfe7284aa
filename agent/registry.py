"""The agent's side of the manager's AgentRegistry: proving which pod it is, its certificate, and what it may serve.

Every call carries the pod's projected token, read anew because the kubelet replaces it. Every attempt makes a channel
of its own: one that lost its peer waits for longer and longer before it looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tunnel.identity import Identity, Kind
from tunnel.proto.manager_pb2 import AgentGrants, AgentReport, CertifyRequest, CertifyResponse

CALL_SECONDS = 10.0
"""How long the manager may take for an answer that it can give at once."""
FIRST_GRANTS_SECONDS = 60.0
"""How long it may take to say what is granted: a manager that has just started must find out first."""
PING_SECONDS = 10.0
"""So long after its last sign of life the manager is pinged, and so long it has for the answer. Without, a manager
whose node is gone would count as there for a quarter of an hour: as long as the kernel sends again."""

_SERVICE = "/tpctl.manager.v1.AgentRegistry"


class ManagerUnavailable(Exception):
    """An attempt to talk to the manager failed; trying again may help. The text is for the log."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The agent's certificate with its key, and the root that sessions must come from. PEM."""

    key: bytes
    chain: bytes
    root: bytes
    expires_at: float
    """Unix seconds."""


class Registry:
    """Talks to one manager.

    `target` is `host:port`; `root` the only root it trusts, PEM; `namespace` the manager's, which its certificate must
    name.
    """

    def __init__(self, target: str, namespace: str, root: bytes, token_file: Path) -> None:
        self._target = target
        self._root = root
        self._token_file = token_file
        self._options: Sequence[tuple[str, str | int]] = (
            ("grpc.ssl_target_name_override", Identity(Kind.MANAGER, namespace).dns),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.keepalive_time_ms", round(PING_SECONDS * 1000)),
            ("grpc.keepalive_timeout_ms", round(PING_SECONDS * 1000)),
            ("grpc.http2.ping_timeout_ms", round(PING_SECONDS * 1000)),  # it is this that counts, a minute otherwise
            ("grpc.http2.max_pings_without_data", 0),  # nothing else travels for hours
        )

    async def certify(self) -> Credentials:
        """A certificate for a fresh key, which never leaves this process. Raises ManagerUnavailable."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        async with self._channel() as channel:
            certify = channel.unary_unary(
                f"{_SERVICE}/Certify",
                request_serializer=CertifyRequest.SerializeToString,
                response_deserializer=CertifyResponse.FromString,
            )
            answer = await certify(
                CertifyRequest(public_key_pem=public), metadata=self._metadata(), timeout=CALL_SECONDS
            )
        return Credentials(
            key=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            chain=answer.certificate_chain_pem,
            root=answer.root_pem or self._root,
            expires_at=answer.expires_at,
        )

    async def attend(self, report: AgentReport, on_grants: Callable[[AgentGrants], None]) -> None:
        """Report, and hand over what is granted whenever it changes, until the manager goes away.

        Raises ManagerUnavailable at the end of the stream, whatever ended it, silence included.
        """
        async with self._channel() as channel:
            attend = channel.stream_stream(
                f"{_SERVICE}/Attend",
                request_serializer=AgentReport.SerializeToString,
                response_deserializer=AgentGrants.FromString,
            )
            call = attend(metadata=self._metadata())
            try:
                async with asyncio.timeout(FIRST_GRANTS_SECONDS) as first:
                    with contextlib.suppress(asyncio.InvalidStateError):  # it has ended; reading says why
                        await call.write(report)
                    async for grants in call:
                        first.reschedule(None)
                        on_grants(grants)
            except TimeoutError:
                raise ManagerUnavailable(f"the manager granted nothing within {FIRST_GRANTS_SECONDS:.0f} s") from None
            finally:
                call.cancel()
        raise ManagerUnavailable("the manager ended the stream")

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise ManagerUnavailable(f"the token cannot be read: {error}") from None
        return (("authorization", f"Bearer {token}"),)

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        credentials = grpc.ssl_channel_credentials(root_certificates=self._root)
        channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
        try:
            yield channel
        except grpc.RpcError as error:
            raise _unavailable(error) from None
        finally:
            await channel.close()


def _unavailable(error: grpc.RpcError) -> ManagerUnavailable:
    if isinstance(error, grpc.aio.AioRpcError):
        return ManagerUnavailable(f"{error.code().name}: {error.details()}")
    return ManagerUnavailable(str(error))
