"""When the original pods are back."""

from __future__ import annotations

from typing import Any

from tpd.session.engagements.handback import is_back, wanted_pods


def pod(uid: str, *, ready: bool = True, going: bool = False) -> dict[str, Any]:
    metadata = {"uid": uid, **({"deletionTimestamp": "now"} if going else {})}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def test_is_back() -> None:
    two = {"spec": {"replicas": 2}}
    assert not is_back(two, [pod("agent"), pod("a"), pod("b")], {"agent"}), "one with the agent still serves"
    assert not is_back(two, [pod("agent", going=True), pod("a"), pod("b", ready=False)], {"agent"})
    assert not is_back(two, [pod("a")], {"agent"})
    assert is_back(two, [pod("agent", going=True), pod("a"), pod("b")], {"agent"})


def test_wanted_pods() -> None:
    assert wanted_pods({"spec": {}}) == 1
    assert wanted_pods({"spec": {"replicas": 0}}) == 0
    assert wanted_pods({"spec": {}, "status": {"desiredNumberScheduled": 3}}) == 3
