"""To which workload a pod belongs: up its controllers (pod → ReplicaSet → Deployment), as ownerReferences tell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from manager.kube import paths
from manager.state.model import Target
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError

_REMEMBERED = 10_000


def controller_of(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ownerReference of the object's controller."""
    for owner in (item.get("metadata") or {}).get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


class Owners:
    """Finds workloads, and remembers which ReplicaSet belongs to what (by uid: that never changes)."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._of_replica_sets: OrderedDict[str, Target] = OrderedDict()

    async def target_of(self, namespace: str, pod: Mapping[str, Any]) -> Target | None:
        """The workload, or None for a pod that belongs to none. Raises KubeError when a ReplicaSet cannot be read."""
        owner = controller_of(pod)
        if owner is None or owner.get("kind") not in paths.WORKLOADS:
            return None
        kind, name = str(owner["kind"]), str(owner["name"])
        if kind != "ReplicaSet":
            return Target(namespace, kind, name)
        uid = str(owner.get("uid", ""))
        known = self._of_replica_sets.get(uid)
        if known is None:
            known = await self._above(namespace, name)
            self._of_replica_sets[uid] = known
            while len(self._of_replica_sets) > _REMEMBERED:
                self._of_replica_sets.popitem(last=False)
        return known

    async def _above(self, namespace: str, replica_set: str) -> Target:
        own = Target(namespace, "ReplicaSet", replica_set)
        try:
            item = await self._api.get(paths.workload(namespace, "ReplicaSet", replica_set))
        except ApiError as error:
            if error.not_found:
                return own
            raise
        owner = controller_of(item)
        if owner is None or owner.get("kind") != "Deployment":
            return own
        return Target(namespace, "Deployment", str(owner["name"]))
