"""What the agent may do now: which ports it listens on and for whom, which sessions it serves, and until when.

Pure: what the manager granted comes in, decisions come out; times are in seconds of any one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tunnel.agentconfig import PROTOCOLS, AgentConfig
from tunnel.proto.manager_pb2 import AgentGrants, Grant

REPLACE = "replace"


@dataclass(frozen=True, slots=True, order=True)
class PortKey:
    """A port to listen on."""

    protocol: str
    """TCP or UDP."""
    port: int


@dataclass(frozen=True, slots=True)
class Route:
    """Who gets the traffic of a port."""

    session: str
    engagement: str


@dataclass(frozen=True, slots=True)
class Decision:
    """All that the current grants allow. What is not in it is forbidden."""

    routes: Mapping[PortKey, Route] = field(default_factory=dict)
    containers: Mapping[Route, str] = field(default_factory=dict)
    """Whose environment an engagement of a session may see."""

    @property
    def sessions(self) -> frozenset[str]:
        """The sessions that may connect."""
        return frozenset(route.session for route in self.containers)


NOTHING = Decision()


def decide(grants: Iterable[Grant], config: AgentConfig) -> Decision:
    """What these grants allow in this pod.

    A grant for a container whose place the agent does not have, of a mode it does not know, or without names, allows
    nothing. Where two grants name the same port the first one has it.
    """
    replaced = {container.name for container in config.replaced}
    routes: dict[PortKey, Route] = {}
    containers: dict[Route, str] = {}
    for grant in grants:
        if grant.mode != REPLACE or grant.container not in replaced or not grant.session or not grant.engagement:
            continue
        route = Route(grant.session, grant.engagement)
        containers.setdefault(route, grant.container)
        for port in grant.ports:
            protocol = port.protocol or "TCP"
            if protocol in PROTOCOLS and 1 <= port.port <= 65535:
                routes.setdefault(PortKey(protocol, port.port), route)
    return Decision(routes, containers)


class Held:
    """The last grants, and how long they may be used.

    As long as the manager is heard they hold. When it is away they hold for one lease: the manager that comes back, or
    another one, may have given the container to somebody else by then.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._decision = NOTHING
        self._lease = 0.0
        self._ends: float | None = None

    def granted(self, grants: AgentGrants) -> None:
        """The manager said what holds now, as a whole."""
        self._decision = decide(grants.grants, self._config)
        self._lease = max(grants.lease_seconds, 0.0)
        self._ends = None

    def manager_lost(self, now: float) -> None:
        """The stream to the manager ended; a second loss before the next grants changes nothing."""
        if self._ends is None:
            self._ends = now + self._lease

    def current(self, now: float) -> Decision:
        """What is allowed at this moment."""
        return NOTHING if self._ends is not None and now >= self._ends else self._decision

    def next_change(self) -> float | None:
        """When `current` will change by itself; None when it will not."""
        return self._ends if self._decision is not NOTHING else None
