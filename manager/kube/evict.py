"""Sending a pod away: by the eviction API, or, where that is forbidden, by the workload's own rollout."""

from __future__ import annotations

import enum
import logging

from manager.kube import paths
from manager.state.model import PodView, Target, format_time, parse_time
from tunnel.kube.api import Api, Object
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
    HELD = enum.auto()
    """A disruption budget forbids it now; ask again."""
    LATER = enum.auto()
    """The API server is busy; ask again."""


class CannotEvict(Exception):
    """Neither way is open; the text says why."""


async def evict(api: Api, target: Target, pod: PodView, wall: float, *, patient: bool, idle: bool) -> Evicted:
    """Evict exactly this pod (uid precondition). Raises `CannotEvict`, KubeError.

    patient: leave it at `HELD` where a disruption budget may allow it later.
    idle: its agent serves nobody, and the pod is not ready any more, or will soon not be. A budget counts it as missing
    then, and keeps it: it is deleted, for nobody misses it, and a StatefulSet's rollout would wait until it is ready.
    """
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
        if idle and not pod.ready:
            return await _delete(api, pod)
        if patient and (idle or error.status == 429):
            return Evicted.HELD
        if target.kind not in _ROLLS_OUT:
            raise CannotEvict(f"a disruption budget keeps pod {pod.name}: {error}") from error
        log.info("a disruption budget keeps pod %s of %s: rolling out instead", pod.name, target.name)
        await _roll(api, target, pod, wall)
        return Evicted.ROLLING
    log.info("evicted pod %s of %s/%s", pod.name, target.kind.lower(), target.name)
    return Evicted.GOING


async def _delete(api: Api, pod: PodView) -> Evicted:
    try:
        await api.delete(paths.pods(pod.namespace, pod.name), body={"preconditions": {"uid": pod.uid}})
    except ApiError as error:
        if error.not_found or error.conflict:
            return Evicted.GOING
        if error.retryable:
            return Evicted.LATER
        raise CannotEvict(f"pod {pod.name} cannot be deleted: {error}") from error
    log.info("deleted pod %s, which served nobody and was kept by a disruption budget", pod.name)
    return Evicted.GOING


def _by_budget(error: ApiError) -> bool:
    """Whether it was a PodDisruptionBudget: one that has no disruption left (429), or two on one pod (500)."""
    causes = [str(cause.get("reason")) for cause in error.details.get("causes") or ()]
    return "DisruptionBudget" in causes or (error.status == 500 and "PodDisruptionBudget" in error.message)


async def _roll(api: Api, target: Target, pod: PodView, wall: float) -> None:
    """Have the workload replace all its pods, unless it is about to do so since this pod was made."""
    path = paths.workload(target.namespace, target.kind, target.name)
    name = f"{target.kind.lower()} {target.name}"
    try:
        spec = (await api.get(path)).get("spec") or {}
        if why := _stops_half_way(spec):
            raise CannotEvict(f"a disruption budget keeps pod {pod.name}, and {name} does not roll out: {why}")
        annotations = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
        if pod.created < parse_time(annotations.get(RESTARTED)):
            return
        await api.patch(path, {"spec": {"template": {"metadata": {"annotations": {RESTARTED: format_time(wall)}}}}})
    except ApiError as error:
        if error.retryable:
            raise
        raise CannotEvict(f"{name} cannot be rolled out: {error}") from error


def _stops_half_way(spec: Object) -> str:
    """Why a rollout would not reach every pod; empty when it would."""
    strategy = spec.get("updateStrategy") or {}
    if spec.get("paused"):
        return "it is paused"
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete"
    if (strategy.get("rollingUpdate") or {}).get("partition"):
        return "its rolling update stops at a partition"
    return ""


async def replica_failure(api: Api, target: Target) -> str:
    """Why the workload cannot create pods, as its status says; empty when it says nothing. Raises `Unreachable`."""
    if target.kind not in ("Deployment", "ReplicaSet"):  # the others tell it in events only
        return ""
    try:
        workload = await api.get(paths.workload(target.namespace, target.kind, target.name))
    except ApiError:
        return ""
    for condition in (workload.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return str(condition.get("message") or "")
    return ""
