"""The agent's side of the manager's AgentRegistry: proving which pod it is, its certificate, and what it may serve.

Every call carries the pod's projected token, read anew because the kubelet replaces it. Every attempt makes a channel
of its own: one that lost its peer waits for longer and longer before it looks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
HEARTBEAT_SECONDS = 20.0
"""The report is repeated this often: unacknowledged bytes are what shows that the manager's node is gone."""

_SERVICE = "/tpctl.manager.v1.AgentRegistry"


class ManagerUnavailable(Exception):
    """An attempt to talk to the manager failed; trying again may help. The text is for the log."""


_EXPECTED = (grpc.RpcError, ManagerUnavailable, TimeoutError, asyncio.InvalidStateError)


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

        Raises ManagerUnavailable at the end of the stream, whatever ended it.
        """
        async with self._channel() as channel:
            attend = channel.stream_stream(
                f"{_SERVICE}/Attend",
                request_serializer=AgentReport.SerializeToString,
                response_deserializer=AgentGrants.FromString,
            )
            call = attend(metadata=self._metadata())

            async def heartbeat() -> None:
                while True:
                    await call.write(report)
                    await asyncio.sleep(HEARTBEAT_SECONDS)

            async def read() -> None:
                async with asyncio.timeout(FIRST_GRANTS_SECONDS) as first:
                    async for grants in call:
                        first.reschedule(None)
                        on_grants(grants)
                raise ManagerUnavailable("the manager ended the stream")

            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(heartbeat(), name="agent-report")
                    tasks.create_task(read(), name="agent-grants")
            except BaseExceptionGroup as errors:
                # Not `except*`: what is raised there comes out alone or in a group, as the Python's patch release will.
                _, unexpected = errors.split(_EXPECTED)
                if unexpected is not None:
                    raise
                raise _first(errors) from None
            finally:
                call.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise ManagerUnavailable(f"the token cannot be read: {error}") from None
        return (("authorization", f"Bearer {token}"),)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[grpc.aio.Channel]:
        credentials = grpc.ssl_channel_credentials(root_certificates=self._root)
        channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
        try:
            yield channel
        except grpc.RpcError as error:
            raise _unavailable(error) from None
        finally:
            await channel.close()


def _first(errors: BaseExceptionGroup[BaseException]) -> ManagerUnavailable:
    """One error of a group, the most telling: the writer's only says that the stream has ended."""
    flat: list[BaseException] = []
    for error in errors.exceptions:
        flat += error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    for error in flat:
        if isinstance(error, grpc.RpcError):
            return _unavailable(error)
    if any(isinstance(error, TimeoutError) for error in flat):
        return ManagerUnavailable(f"the manager granted nothing within {FIRST_GRANTS_SECONDS:.0f} s")
    return ManagerUnavailable(str(flat[0]))


def _unavailable(error: grpc.RpcError) -> ManagerUnavailable:
    if isinstance(error, grpc.aio.AioRpcError):
        return ManagerUnavailable(f"{error.code().name}: {error.details()}")
    return ManagerUnavailable(str(error))
