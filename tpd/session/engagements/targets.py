"""Pure. Which local target stands for which engaged port. Only this table decides what an agent can reach here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from tpd.session.engagements.ports import PortMapping
from tunnel.proto import open_pb2


@dataclass(frozen=True, slots=True)
class Target:
    """Where a local process listens. protocol: TCP or UDP."""

    address: str
    port: int
    protocol: str

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.protocol.lower()}"


_PROTOCOLS = {open_pb2.TCP: "TCP", open_pb2.UDP: "UDP"}


class Targets:
    """(agent's pod, engagement, container port) → target."""

    def __init__(self) -> None:
        self._targets: dict[str, dict[tuple[str, int], Target]] = {}

    def add(self, engagement: str, address: str, mappings: Iterable[PortMapping]) -> None:
        """Calls of this engagement's ports are answered from now on."""
        self._targets[engagement] = {(m.protocol, m.container): Target(address, m.local, m.protocol) for m in mappings}

    def remove(self, engagement: str) -> None:
        """They are refused from now on."""
        self._targets.pop(engagement, None)

    def find(self, open_body: bytes, allowed: Iterable[str]) -> tuple[Target, open_pb2.Inbound] | None:
        """The target of an `Open` that a peer sent, or None when it may not open that.

        allowed: the engagements that this very agent serves; another's are not its business.
        """
        try:
            inbound = open_pb2.Open.FromString(open_body).inbound
        except DecodeError:
            return None
        protocol = _PROTOCOLS.get(inbound.transport)
        if protocol is None or inbound.engagement not in allowed:
            return None
        target = self._targets.get(inbound.engagement, {}).get((protocol, inbound.container_port))
        return None if target is None else (target, inbound)
