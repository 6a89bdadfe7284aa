"""Why a Deployment is not ready."""

from __future__ import annotations

from typing import Any

import pytest

from tpd.session.rollout_reason import is_rolled_out, last_line, newest_first, why_waiting

DEPLOYMENT: dict[str, Any] = {"metadata": {"name": "m", "generation": 2}, "spec": {"replicas": 1}, "status": {}}


def pod(container: dict[str, Any] | None = None, conditions: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    status = {"conditions": conditions or [], "containerStatuses": [{"name": "app", **(container or {})}]}
    return {"metadata": {"name": "m-1"}, "status": status}


@pytest.mark.parametrize(
    ("found", "reason", "says"),
    [
        (
            pod({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}),
            "ImagePullBackOff",
            "no such image",
        ),
        (
            pod({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 3}}}),
            "CrashLoopBackOff",
            "status 3",
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),
            "Unschedulable",
            "0/1 nodes",
        ),
        (pod({"state": {"running": {}}, "ready": False}), "", "waiting for it to be ready"),
        (pod(), "", "is starting"),
    ],
)
def test_why_waiting(found: dict[str, Any], reason: str, says: str) -> None:
    assert why_waiting(DEPLOYMENT, [found])[0] == reason
    assert says in why_waiting(DEPLOYMENT, [found])[1]


def test_pods_that_cannot_be_created() -> None:
    failing = {
        **DEPLOYMENT,
        "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota exceeded"}]},
    }
    assert "quota exceeded" in why_waiting(failing, [])[1]


def test_rolled_out_only_when_the_newest_template_serves() -> None:
    done = {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
    assert is_rolled_out({**DEPLOYMENT, "status": done})
    for change in ({"observedGeneration": 1}, {"updatedReplicas": 0}, {"availableReplicas": 0}, {"replicas": 2}):
        assert not is_rolled_out({**DEPLOYMENT, "status": {**done, **change}})


def test_small_things() -> None:
    assert last_line("a\nb\n\n") == "b"
    assert last_line("") == ""
    going = {"metadata": {"name": "x", "deletionTimestamp": "now"}}
    old, new = ({"metadata": {"name": n, "creationTimestamp": n}} for n in "12")
    assert newest_first([old, going, new]) == [new, old]
