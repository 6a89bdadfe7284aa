"""Sending a pod away: by the eviction API, or, where that is forbidden, by the workload's own rollout."""

from __future__ import annotations

import enum
import logging

from manager.kube import paths
from manager.state.model import PodView, Target, format_time
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError

log = logging.getLogger(__name__)

RESTARTED = "tpctl.io/restartedAt"
"""Annotation on a workload's pod template; a new value makes the workload roll out."""

_ROLLS_OUT = frozenset({"Deployment", "StatefulSet", "DaemonSet"})


class Evicted(enum.Enum):
    """What came of it."""

    GOING = enum.auto()
    """The pod goes, or has gone already."""
    ROLLING = enum.auto()
    """A disruption budget forbids it; the workload rolls out instead."""
    LATER = enum.auto()
    """The API server is busy; ask again."""


class CannotEvict(Exception):
    """Neither way is open; the text says why."""


async def evict(api: Api, target: Target, pod: PodView, wall: float) -> Evicted:
    """Evict exactly this pod (uid precondition). Raises `CannotEvict`, KubeError."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    }
    try:
        await api.create(paths.pods(pod.namespace, pod.name, "eviction"), body)
    except ApiError as error:
        if error.not_found or error.conflict:
            return Evicted.GOING
        if not _by_budget(error):
            if error.retryable:
                return Evicted.LATER
            raise CannotEvict(f"pod {pod.name} cannot be evicted: {error}") from error
        if target.kind not in _ROLLS_OUT:
            raise CannotEvict(f"a disruption budget keeps pod {pod.name}: {error}") from error
        log.info("a disruption budget keeps pod %s of %s: rolling out instead", pod.name, target.name)
        await _roll(api, target, wall)
        return Evicted.ROLLING
    log.info("evicted pod %s of %s/%s", pod.name, target.kind.lower(), target.name)
    return Evicted.GOING


def _by_budget(error: ApiError) -> bool:
    """Whether it was a PodDisruptionBudget: one that has no disruption left (429), or two on one pod (500)."""
    causes = [str(cause.get("reason")) for cause in error.details.get("causes") or ()]
    return "DisruptionBudget" in causes or (error.status == 500 and "PodDisruptionBudget" in error.message)


async def _roll(api: Api, target: Target, wall: float) -> None:
    template = {"metadata": {"annotations": {RESTARTED: format_time(wall)}}}
    try:
        await api.patch(paths.workload(target.namespace, target.kind, target.name), {"spec": {"template": template}})
    except ApiError as error:
        if error.retryable:
            raise
        raise CannotEvict(f"{target.kind.lower()} {target.name} cannot be rolled out: {error}") from error
