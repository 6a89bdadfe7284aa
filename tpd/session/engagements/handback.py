"""After `leave`: waiting a little while until the original container serves again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tpd.session.control import Progress
from tpd.session.kube import paths
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError

WAIT_LIMIT = 20.0
"""Seconds; afterwards the cluster goes on by itself, and `leave` has succeeded anyway."""
_LOOK_EVERY = 0.25


async def wait_for_original(api: Api, key: tuple[str, str, str, str], pods: Sequence[str], progress: Progress) -> None:
    """Wait until none of `pods` (uids, those with the agent) serves any more and the workload is ready."""
    namespace, kind, name, _ = key
    if not pods:
        return
    try:
        async with asyncio.timeout(WAIT_LIMIT):
            while not await _is_back(api, namespace, kind, name, pods):
                progress.say("leave", f"waiting for the original container of {kind.lower()} {name}")
                await asyncio.sleep(_LOOK_EVERY)
    except (TimeoutError, KubeError):
        progress.say("leave", f"{kind.lower()} {name} is given back; its pods are not all ready yet")


async def _is_back(api: Api, namespace: str, kind: str, name: str, pods: Sequence[str]) -> bool:
    workload, found = await asyncio.gather(
        api.get(paths.workloads(kind, namespace, name)), api.list(paths.pods(namespace))
    )
    still = [
        pod
        for pod in found.get("items") or []
        if pod["metadata"]["uid"] in pods and not pod["metadata"].get("deletionTimestamp")
    ]
    return not still and is_ready(workload)


def is_ready(workload: dict[str, Any]) -> bool:
    """Whether all replicas that it wants are ready (apps/v1)."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    if "desiredNumberScheduled" in status:  # DaemonSet
        return int(status.get("numberReady") or 0) >= int(status["desiredNumberScheduled"])
    wanted = spec.get("replicas")
    return int(status.get("readyReplicas") or 0) >= (1 if wanted is None else int(wanted))
