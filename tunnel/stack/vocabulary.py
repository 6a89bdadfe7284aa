"""What the stack and its owner say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tunnel.endpoint import EndpointHandler

if TYPE_CHECKING:
    from tunnel.stack.connection import TcpConnection
    from tunnel.stack.icmp import EchoRequest
    from tunnel.stack.udp import UdpAssociation

Packet = Sequence[bytes | bytearray | memoryview]
"""One packet for the device, in pieces: virtio header and headers, then slices of the payload (for `os.writev`)."""


class UdpHandler(Protocol):
    """Receives what one UDP association brings."""

    def on_datagram(self, data: memoryview) -> None:
        """One datagram's payload, possibly empty. The view may be kept."""

    def on_expired(self) -> None:
        """Nothing came or went for the idle time, room was needed, or the peer's port is closed. The last call."""


class StackHandler(Protocol):
    """Decides what becomes of what the peer starts. Calls come from `Stack.receive` and must not block."""

    def on_tcp(self, connection: TcpConnection) -> EndpointHandler:
        """A SYN arrived. Now or later call `connection.accept()` or `connection.refuse(Refusal)`."""

    def on_udp(self, association: UdpAssociation) -> UdpHandler:
        """The first datagram of a (source, destination); it follows as `on_datagram`."""

    def on_echo(self, request: EchoRequest) -> None:
        """A ping. Call `request.reply()`, now or later, only if the destination really answers."""
