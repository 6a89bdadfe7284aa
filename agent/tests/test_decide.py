"""What grants allow."""

from __future__ import annotations

import pytest

from agent.decide import NOTHING, Held, PortKey, Route, decide
from tunnel.agentconfig import AgentConfig, ManagerAddress, ReplacedContainer, Workload
from tunnel.proto.manager_pb2 import AgentGrants, Grant, GrantPort


def replaced(name: str, letter: str) -> ReplacedContainer:
    return ReplacedContainer(name, f"_TEL_APP_{letter}_", f"_TEL_FROM_{letter}_", f"/tel_app_mounts/{name}")


CONFIG = AgentConfig(
    ManagerAddress("tpctl-system", "traffic-manager.tpctl-system.svc", 8444),
    Workload("Deployment", "echo"),
    9900,
    9901,
    (replaced("app", "A"), replaced("log", "B")),
)


def grant(session: str = "s1", engagement: str = "e1", container: str = "app", *ports: tuple[int, str]) -> Grant:
    return Grant(
        engagement=engagement,
        session=session,
        mode="replace",
        container=container,
        ports=[GrantPort(port=port, protocol=protocol) for port, protocol in ports],
    )


def test_ports_go_to_their_sessions() -> None:
    decision = decide(
        [grant("s1", "e1", "app", (80, "TCP"), (53, "UDP"), (53, "TCP")), grant("s2", "e2", "log", (90, ""))], CONFIG
    )
    assert decision.routes == {
        PortKey("TCP", 80): Route("s1", "e1"),
        PortKey("UDP", 53): Route("s1", "e1"),
        PortKey("TCP", 53): Route("s1", "e1"),
        PortKey("TCP", 90): Route("s2", "e2"),
    }
    assert decision.sessions == {"s1", "s2"}
    assert decision.containers == {Route("s1", "e1"): "app", Route("s2", "e2"): "log"}


def test_a_container_without_ports_is_served_without_listening() -> None:
    decision = decide([grant()], CONFIG)
    assert decision.routes == {}
    assert decision.sessions == {"s1"}


def test_the_first_grant_has_the_port() -> None:
    decision = decide([grant("s1", "e1", "app", (80, "TCP")), grant("s2", "e2", "log", (80, "TCP"))], CONFIG)
    assert decision.routes == {PortKey("TCP", 80): Route("s1", "e1")}
    assert decision.sessions == {"s1", "s2"}


@pytest.mark.parametrize(
    "useless",
    [
        Grant(engagement="e", session="s", mode="intercept", container="app"),
        Grant(engagement="e", session="s", mode="replace", container="sidecar"),
        Grant(engagement="e", mode="replace", container="app"),
        Grant(session="s", mode="replace", container="app"),
        Grant(),
    ],
)
def test_what_allows_nothing(useless: Grant) -> None:
    assert decide([useless], CONFIG) == NOTHING


@pytest.mark.parametrize(("port", "protocol"), [(0, "TCP"), (65536, "TCP"), (80, "SCTP"), (80, "tcp")])
def test_ports_that_are_none(port: int, protocol: str) -> None:
    assert decide([grant("s", "e", "app", (port, protocol))], CONFIG).routes == {}


def test_grants_hold_while_the_manager_is_heard_and_one_lease_longer() -> None:
    held = Held(CONFIG)
    assert held.current(0) is NOTHING
    held.manager_lost(1)
    assert held.next_change() is None

    held.granted(AgentGrants(grants=[grant()], lease_seconds=300))
    assert held.next_change() is None
    assert held.current(10_000).sessions == {"s1"}

    held.manager_lost(10_000)
    held.manager_lost(10_200)  # a failed attempt to reach it does not prolong anything
    assert held.next_change() == 10_300
    assert held.current(10_299).sessions == {"s1"}
    assert held.current(10_300) is NOTHING

    held.granted(AgentGrants(grants=[grant("s2")], lease_seconds=300))
    assert held.current(20_000).sessions == {"s2"}
    held.granted(AgentGrants())
    assert held.current(20_001) == NOTHING
