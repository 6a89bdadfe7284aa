"""To which workload a pod belongs: up its controllers (pod → ReplicaSet → Deployment), as ownerReferences tell.

Whoever makes an object writes its ownerReferences, and the API server checks none of them. So a reference counts only
when the object that bears its name here has its uid too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Any

from manager.kube import paths
from manager.state.model import Target, is_name
from tunnel.kube.api import Api, Object
from tunnel.kube.errors import ApiError

_REMEMBERED = 10_000


def controller_of(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The ownerReference of the object's controller."""
    for owner in (item.get("metadata") or {}).get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


class Owners:
    """Finds workloads, and remembers which ReplicaSet belongs to what (by its true uid: that never changes)."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._of_replica_sets: OrderedDict[str, Target] = OrderedDict()

    async def target_of(self, namespace: str, pod: Mapping[str, Any]) -> Target | None:
        """The workload, or None for a pod that belongs to none. Raises KubeError when an owner cannot be read."""
        owner = controller_of(pod)
        if owner is None or not _may_be(owner, paths.WORKLOADS):
            return None
        if owner["kind"] != "ReplicaSet":
            return Target(namespace, str(owner["kind"]), str(owner["name"]))
        uid = str(owner.get("uid"))
        known = self._of_replica_sets.get(uid)
        if known is None:
            known = await self._above(namespace, owner)
            if known is None:
                return None
            self._of_replica_sets[uid] = known
            while len(self._of_replica_sets) > _REMEMBERED:
                self._of_replica_sets.popitem(last=False)
        return known if known.namespace == namespace else None

    async def _above(self, namespace: str, reference: Mapping[str, Any]) -> Target | None:
        replica_set = await self._named(namespace, reference)
        if replica_set is None:
            return None
        owner = controller_of(replica_set)
        if owner is None or not _may_be(owner, {"Deployment"}):
            return Target(namespace, "ReplicaSet", str(reference["name"]))
        if await self._named(namespace, owner) is None:
            return None
        return Target(namespace, "Deployment", str(owner["name"]))

    async def _named(self, namespace: str, reference: Mapping[str, Any]) -> Object | None:
        """What the reference points to; None when that is another object by now, or none."""
        try:
            item = await self._api.get(paths.workload(namespace, str(reference["kind"]), str(reference["name"])))
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return item if item["metadata"]["uid"] == reference.get("uid") else None


def _may_be(owner: Mapping[str, Any], kinds: Container[str]) -> bool:
    """Whether the reference is to one of these kinds of apps/v1, by a name that such an object can have."""
    return owner.get("apiVersion") == "apps/v1" and owner.get("kind") in kinds and is_name(str(owner.get("name")))
