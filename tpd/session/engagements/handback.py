"""Waiting a little while until pods serve: ours after `replace`, the original ones after `leave`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from tpd.session.control import Progress
from tpd.session.kube import paths
from tpd.session.kube.manager import is_ready
from tunnel.kube.api import Api
from tunnel.kube.errors import KubeError

WAIT_LIMIT = 20.0
"""Seconds; afterwards the cluster goes on by itself, and the command has succeeded anyway."""
_LOOK_EVERY = 0.15


async def wait_for_agents(api: Api, namespace: str, names: Sequence[str], progress: Progress) -> None:
    """Wait until these pods are ready, so that services send calls to them."""
    try:
        async with asyncio.timeout(WAIT_LIMIT):
            for name in names:
                while not is_ready(await api.get(paths.pods(namespace, name))):
                    progress.say("replace", f"waiting for pod {name} to be ready")
                    await asyncio.sleep(_LOOK_EVERY)
    except (TimeoutError, KubeError):
        progress.say("replace", "the pods are not all ready yet")


async def wait_for_original(api: Api, key: tuple[str, str, str, str], pods: Collection[str], progress: Progress) -> str:
    """Wait until none of `pods` (uids, those with the agent) serves any more and as many others do as are wanted.

    What is still missing when the waiting has an end; empty when nothing is.
    """
    namespace, kind, name, _ = key
    if not pods:
        return ""
    try:
        async with asyncio.timeout(WAIT_LIMIT):
            workload = await api.get(paths.workloads(kind, namespace, name))
            labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
            selector = ",".join(f"{label}={value}" for label, value in labels.items())
            while True:
                found = await api.list(paths.pods(namespace), labelSelector=selector)
                if is_back(workload, found.get("items") or [], pods):
                    return ""
                progress.say("leave", f"waiting for the original container of {kind.lower()} {name}")
                await asyncio.sleep(_LOOK_EVERY)
    except (TimeoutError, KubeError):
        return "the original is not back yet"


def is_back(workload: dict[str, Any], found: Sequence[dict[str, Any]], pods: Collection[str]) -> bool:
    """Pure. Whether the workload's pods `found` are the original ones again, and ready."""
    alive = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    if any(pod["metadata"]["uid"] in pods for pod in alive):
        return False
    return sum(is_ready(pod) for pod in alive) >= wanted_pods(workload)


def wanted_pods(workload: dict[str, Any]) -> int:
    """How many pods the workload wants (apps/v1)."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    if "desiredNumberScheduled" in status:  # DaemonSet
        return int(status["desiredNumberScheduled"])
    replicas = spec.get("replicas")
    return 1 if replicas is None else int(replicas)
