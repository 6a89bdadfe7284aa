"""What every kind of byte stream in this project looks like to its neighbour.

Three things carry bytes: a TCP connection of the laptop's TCP/IP stack, a flow of the multiplexer, and an
operating-system socket. Each is an `Endpoint` (what its owner may tell it) with one `EndpointHandler` (what it
tells its owner). `tunnel.splice.Splice` joins any two of them. All calls are synchronous and none blocks.

The contract:

* `send` takes a prefix of what it is given, perhaps nothing, and returns its length. It keeps a reference to what
  it took and never copies without need, so the caller must not change those bytes afterwards. When it took less than
  everything, `on_writable` follows as soon as there is room again.
* `on_data` hands over bytes that count against the sender's credit until `consumed` gives them back. The handler
  may keep the memoryview.
* `on_eof` comes at most once, after the last `on_data`: the peer will send nothing more, but may still read.
* `on_closed` comes exactly once and is the last call: `None` when both directions ended in order, otherwise why not.
  After `reset()` of one's own no further call comes at all, `on_closed` included.
"""

from __future__ import annotations

import enum
from typing import Protocol


class Refusal(enum.IntEnum):
    """Why a connection could not be opened. Part of the wire protocol: numbers never change meaning."""

    REFUSED = 1
    """The destination answered with a reset: nobody listens on that port."""
    UNREACHABLE = 2
    """No host at that address, or no route to it."""
    TIMEOUT = 3
    """No answer within the dial limit."""
    PROHIBITED = 4
    """A policy forbids it (loopback, metadata service, no engagement, …)."""
    BUSY = 5
    """A limit on flows, pending dials or memory is reached; trying later may help."""
    GONE = 6
    """What the flow belonged to (session, engagement, link) has ended."""


class Broken(enum.IntEnum):
    """Why a stream ended before both directions had ended in order. Part of the wire protocol."""

    RESET = 1
    """The far program reset its connection, or its host did."""
    LINK_LOST = 2
    """The tunnel's peer forgot the flow (it restarted, or the link lingered too long)."""
    TIMED_OUT = 3
    """The far end stopped answering."""
    ENDED = 4
    """Session or engagement ended."""
    PROTOCOL = 5
    """The peer broke the protocol for this flow."""
    REFUSED = 6
    """Datagrams only: the destination answered one with ICMP that nobody listens on that port."""


class Endpoint(Protocol):
    """One side of a byte stream; see the module's text for the contract."""

    def send(self, data: memoryview) -> int:
        """Take a prefix of `data`; return how many bytes were taken (0 when there is no room)."""

    def send_eof(self) -> None:
        """End our direction after everything taken so far. Idempotent; nothing may be sent afterwards."""

    def reset(self) -> None:
        """Drop both directions at once and tell the far end. Idempotent."""

    def consumed(self, count: int) -> None:
        """`count` bytes that `on_data` handed over have left for good; the sender may send as many more."""


class EndpointHandler(Protocol):
    """What an `Endpoint` tells its owner; see the module's text for the contract."""

    def on_data(self, data: memoryview) -> None:
        """Bytes in order."""

    def on_eof(self) -> None:
        """No more bytes will come."""

    def on_writable(self) -> None:
        """There is room again after `send` took less than everything."""

    def on_closed(self, broken: Broken | None) -> None:
        """The last call."""
