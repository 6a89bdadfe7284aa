"""A gRPC channel of its own over a carrier, mutually authenticated with the peer process at its other end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tpd.session.carriers.bridge import Bridge
from tpd.session.carriers.port_forward import PortForward
from tpd.session.identity import Identity

if TYPE_CHECKING:
    import grpc.aio


class PeerChannel:
    """`channel` works until `close()` or until the carrier ends (`ended` says why). A new carrier, a new channel:
    gRPC's own reconnecting would wait for minutes, and its socket is gone."""

    def __init__(self, carrier: PortForward, expected: str, identity: Identity) -> None:
        """expected: the DNS name in the peer's certificate, e.g. `UID.agent.tpctl`."""
        import grpc
        import grpc.aio

        from tunnel.aio.grpc_stream import CHANNEL_OPTIONS

        self._bridge = Bridge(carrier)
        self._bridge.listen()
        self._pump = asyncio.get_running_loop().create_task(self._bridge.run(), name=f"bridge {expected}")
        credentials = grpc.ssl_channel_credentials(identity.root, identity.key, identity.chain)
        self.channel: grpc.aio.Channel = grpc.aio.secure_channel(
            self._bridge.address,
            credentials,
            options=[
                *CHANNEL_OPTIONS,
                ("grpc.enable_http_proxy", 0),
                ("grpc.ssl_target_name_override", expected),
            ],
        )

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done, with the reason, when the carrier is down."""
        return self._bridge.ended

    async def close(self) -> None:
        """Close channel and carrier. Idempotent; takes about a second at most."""
        try:
            await self.channel.close(None)
        finally:
            self._pump.cancel()
            await asyncio.wait([self._pump], timeout=1)
            self._bridge.close()  # a task that is cancelled before its first step does nothing in the end


class CallFailed(Exception):
    """A call over a channel brought no answer; the text says why."""


@contextmanager
def failures() -> Iterator[None]:
    """Raises `CallFailed` for all the ways in which grpc.aio says that a call has failed.

    One of them is CancelledError, when the channel was closed meanwhile; ours is told from it by who was cancelled.
    """
    import grpc.aio

    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise CallFailed(error.details() or error.code().name) from error
    except grpc.aio.BaseError as error:
        raise CallFailed(str(error)) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise CallFailed("the channel was closed") from error
