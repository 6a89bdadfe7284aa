"""Pure. Why a Deployment is not ready, from its own status, its pods and their events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]

HOPELESS = frozenset(
    ("CreateContainerConfigError", "CreateContainerError", "InvalidImageName", "ErrImageNeverPull", "RunContainerError")
)
"""Reasons for waiting that no time mends."""
BAD_SIGNS = frozenset(("Error", "ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff"))
"""Reasons that may still pass (a registry that comes back), but seldom do: given up after a while."""


def is_rolled_out(deployment: Object) -> bool:
    """Whether every wanted replica is of the newest template and available (apps/v1 Deployment)."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    wanted = 1 if spec.get("replicas") is None else int(spec["replicas"])
    generation = int((deployment.get("metadata") or {}).get("generation") or 0)
    return (
        int(status.get("observedGeneration") or 0) >= generation
        and int(status.get("updatedReplicas") or 0) >= wanted
        and int(status.get("availableReplicas") or 0) >= wanted
        and int(status.get("replicas") or 0) <= wanted
    )


def why_waiting(deployment: Object, pods: Sequence[Object]) -> tuple[str, str]:
    """(machine-readable reason or empty, text) of the first obstacle."""
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("reason")), f"its pods cannot be created: {condition.get('message')}"
    for pod in pods:
        found = _pod_reason(pod)
        if found is not None:
            return found
    name = deployment["metadata"]["name"]
    return "", f"waiting for the pods of {name}" if not pods else f"pod {pods[0]['metadata']['name']} is starting"


def _pod_reason(pod: Object) -> tuple[str, str] | None:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "Unschedulable", f"pod {name} cannot be scheduled: {condition.get('message')}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in HOPELESS or reason in BAD_SIGNS:
            return reason, f"{reason} in pod {name}, container {container['name']}: {_why(container, waiting)}"
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return "Error", f"container {container['name']} of pod {name} ended with status {ended['exitCode']}"
        running = (container.get("state") or {}).get("running")
        if running is not None and not container.get("ready") and int(container.get("restartCount") or 0) == 0:
            return "", f"pod {name} runs; waiting for it to be ready"
    return None


def _why(container: Object, waiting: Object) -> str:
    if waiting.get("reason") == "CrashLoopBackOff":
        ended = (container.get("lastState") or {}).get("terminated") or {}
        return f"it ended with status {ended.get('exitCode', '?')}"
    message = str(waiting.get("message") or "no message")
    return message if len(message) <= 300 else message[:299] + "…"


def last_line(log: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def newest_first(pods: Sequence[Object]) -> list[Object]:
    """Pods that are not about to go, newest first."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return sorted(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), reverse=True)
