"""The first message of a carrier, each way: hello, or go-away instead of an answer (docs/protocol.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from tunnel.mux import frames
from tunnel.mux.errors import GoAway, HelloRefused, PeerLeft, RemoteProtocolError
from tunnel.mux.frames import Type
from tunnel.mux.lane import Lane
from tunnel.proto import tunnel_pb2

OLDEST = 1
NEWEST = 1
"""Protocol versions this release speaks."""
INSTANCE_SIZE = 16


@dataclass(frozen=True)
class Limits:
    """What one side grants the other."""

    flows: int = 4096
    """Flows the peer may have open that it opened."""
    pending: int = 1024
    """Of those, how many may be unanswered."""
    linger_seconds: float = 300.0
    """How long this side keeps a link's flows without a carrier."""


@dataclass(frozen=True)
class Hello:
    """A hello whose form is valid; what it claims is checked by the link or the registry."""

    oldest: int
    newest: int
    software: str
    session: str
    instance: bytes
    peer_instance: bytes
    lane: Lane
    generation: int
    received: int
    limits: Limits

    def encode(self) -> bytes:
        """As a message."""
        body = tunnel_pb2.Hello(
            oldest=self.oldest,
            newest=self.newest,
            software=self.software,
            session=self.session,
            instance=self.instance,
            peer_instance=self.peer_instance,
            lane=self.lane,
            generation=self.generation,
            received=self.received,
            limits=tunnel_pb2.Limits(
                flows=self.limits.flows,
                pending=self.limits.pending,
                linger_seconds=self.limits.linger_seconds,
            ),
        ).SerializeToString()
        return frames.message(0, (frames.frame(Type.HELLO, payload=body),))


def go_away(code: GoAway, text: str) -> bytes:
    """A message that ends the carrier."""
    return frames.message(0, (frames.frame(Type.GO_AWAY, 0, code, frames.text_payload(text)),))


def parse(message: bytes) -> Hello:
    """Read the first message. Raises PeerLeft for go-away, RemoteProtocolError for anything but a valid hello."""
    number, control, _ = frames.split(message)
    parsed = frames.parse(control, numbered=False)
    if number or len(parsed) != 1:
        raise RemoteProtocolError("the first message is not one hello")
    kind, detail, _, payload = parsed[0]
    if kind == Type.GO_AWAY:
        raise PeerLeft(detail, str(payload, "utf-8", "replace"))
    if kind != Type.HELLO:
        raise RemoteProtocolError("the first message is not a hello")
    try:
        body = tunnel_pb2.Hello.FromString(bytes(payload))
        lane = Lane(body.lane)
    except (DecodeError, ValueError) as error:
        raise RemoteProtocolError("malformed hello") from error
    if len(body.instance) != INSTANCE_SIZE or len(body.peer_instance) not in (0, INSTANCE_SIZE) or not body.generation:
        raise RemoteProtocolError("malformed hello")
    limits = Limits(body.limits.flows, body.limits.pending, max(0.0, body.limits.linger_seconds))
    return Hello(
        body.oldest,
        body.newest,
        body.software,
        body.session,
        body.instance,
        body.peer_instance,
        lane,
        body.generation,
        body.received,
        limits,
    )


def choose_version(hello: Hello) -> int:
    """The newest version both speak. Raises HelloRefused."""
    version = min(NEWEST, hello.newest)
    if version < max(OLDEST, hello.oldest):
        raise HelloRefused(
            GoAway.VERSION,
            f"the other side speaks tunnel protocol {hello.oldest} to {hello.newest}, this side {OLDEST} to {NEWEST}",
        )
    return version
