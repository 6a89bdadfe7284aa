"""A link to one peer process (manager or agent) over port-forwards to its pod."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tpd.session.carriers.peer import PeerChannel
from tpd.session.carriers.port_forward import CarrierFailed, PortForward, discard
from tpd.session.identity import Identity
from tunnel.aio.byte_stream import ByteStream, StreamError, StreamRefused
from tunnel.aio.link_client import LinkClient, LinkState
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link
from tunnel.mux.window import Budget

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """What all links of the process have in common."""

    budget: Budget = field(default_factory=Budget)
    sent: int = 0
    """Bytes of messages, for `tpctl status`; what TLS and the port-forward add is not counted."""
    received: int = 0


@dataclass(frozen=True)
class Where:
    """A pod and the port on which the peer serves. `expected` is the DNS name in its certificate."""

    namespace: str
    pod: str
    port: int
    expected: str


class PeerLink:
    """Keeps one link. `locate()` says where the peer is now (asked before every dial); `identity()` who we are now."""

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        session: str,
        locate: Callable[[], Awaitable[Where]],
        identity: Callable[[], Identity],
        acceptor: Acceptor,
        on_state: Callable[[LinkState], None],
        shared: Shared,
        first: asyncio.Task[PortForward] | None = None,
    ) -> None:
        """first: a carrier that is being opened already; the first dial uses it."""
        self._api = api
        self._name = name
        self._locate = locate
        self._identity = identity
        self._first = first
        self._shared = shared
        self._peers: dict[Lane, PeerChannel] = {}
        self._dialled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = LinkClient(
            dial=self._dial,
            session=session,
            acceptor=acceptor,
            name=name,
            on_state=on_state,
            budget=shared.budget,
        )

    @property
    def link(self) -> Link:
        """Where flows are opened and questions asked."""
        return self._client.link

    @property
    def trouble(self) -> str:
        """Why there is no carrier, as far as that is known."""
        return self._client.trouble

    async def run(self) -> None:
        """Keep the link until cancelled. Raises `LinkRefused` when the peer will not have this session."""
        try:
            await self._client.run()
        finally:
            if self._first is not None:
                discard(self._first)
            await asyncio.gather(*(peer.close() for peer in self._peers.values()))

    async def connected(self) -> None:
        """Wait until the peer has answered the hello."""
        await self._client.connected()

    async def channel(self, other_than: PeerChannel | None = None) -> PeerChannel:
        """The interactive lane's channel; waits for one that works and is not `other_than`."""
        while (peer := self._peers.get(Lane.INTERACTIVE)) is None or peer is other_than or peer.ended.done():
            await asyncio.shield(self._dialled)
        return peer

    async def _dial(self, lane: Lane) -> ByteStream:
        try:
            where = await self._locate()
            carrier = await self._carrier(where, lane)
        except (KubeError, CarrierFailed) as error:
            raise StreamError(str(error)) from error
        from tunnel.aio.grpc_stream import connect_stream

        try:
            peer = PeerChannel(carrier, where.expected, self._identity())
        except BaseException:
            carrier.abort()
            raise
        self._peers[lane] = peer
        dialled, self._dialled = self._dialled, asyncio.get_running_loop().create_future()
        dialled.set_result(None)
        return _LaneStream(connect_stream(peer.channel), peer, self._shared)

    async def _carrier(self, where: Where, lane: Lane) -> PortForward:
        first, self._first = self._first, None
        if first is not None:
            return await first
        return await PortForward.open(self._api, where.namespace, where.pod, where.port, bulk=lane is Lane.BULK)


class _LaneStream(ByteStream):
    """The stream of one lane; closing it closes the channel and the carrier that were made for it."""

    def __init__(self, stream: ByteStream, peer: PeerChannel, shared: Shared) -> None:
        self._stream = stream
        self._peer = peer
        self._shared = shared

    async def read(self) -> bytes | None:
        with self._reasons():
            message = await self._stream.read()
        if message is not None:
            self._shared.received += len(message)
        return message

    async def write(self, message: bytes) -> None:
        with self._reasons():
            await self._stream.write(message)
        self._shared.sent += len(message)

    @contextmanager
    def _reasons(self) -> Iterator[None]:
        """Of a carrier that has ended gRPC knows only that its socket is gone."""
        try:
            yield
        except StreamRefused:
            raise
        except StreamError as error:
            if not self._peer.ended.done():
                raise
            raise StreamError(self._peer.ended.result()) from error

    async def close(self) -> None:
        try:
            await self._stream.close()
        finally:
            await self._peer.close()
