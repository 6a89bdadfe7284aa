"""Finding the traffic-manager: its namespace, and a pod of it that serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpd.session import errors
from tpd.session.kube import paths
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError

Object = dict[str, Any]


async def find(api: Api, wanted: str) -> tuple[str, Object]:
    """(namespace, pod) of the manager in namespace `wanted`, or wherever there is one.

    One round trip where it is in its usual place. Raises `SessionError`.
    """
    namespace = wanted or paths.MANAGER_NAMESPACE
    try:
        pods = await manager_pods(api, namespace)
    except ApiError as error:
        if wanted or not error.forbidden:
            raise errors.from_kube(error, f"looking for the traffic-manager in namespace {namespace}") from error
        pods = []
    except KubeError as error:
        raise errors.from_kube(error, "looking for the traffic-manager") from error
    if all(_is_going(pod) for pod in pods):  # of a manager that was uninstalled a moment ago there is no more than that
        namespace = await _look_everywhere(api, wanted, seen_in=namespace if pods else "")
        try:
            pods = await manager_pods(api, namespace)
        except KubeError as error:
            raise errors.from_kube(error, f"looking for the traffic-manager in namespace {namespace}") from error
    return namespace, choose(pods, namespace)


async def manager_pods(api: Api, namespace: str) -> list[Object]:
    """The manager's pods. Raises `KubeError`."""
    answer = await api.list(paths.pods(namespace), labelSelector=paths.MANAGER_LABELS)
    return list(answer.get("items") or [])


async def _look_everywhere(api: Api, wanted: str, *, seen_in: str) -> str:
    """The namespace of the only Service of a manager. Raises `SessionError`.

    seen_in: where there are pods of one, all about to go; who may not look everywhere is told of these.
    """
    try:
        answer = await api.list(paths.SERVICES, labelSelector=paths.MANAGER_LABELS)
    except ApiError as error:
        if error.forbidden and seen_in:
            return seen_in
        if error.forbidden and wanted:
            raise errors.no_manager_in(wanted, []) from error
        if error.forbidden:
            raise errors.manager_not_visible() from error
        raise errors.from_kube(error, "looking for the traffic-manager") from error
    except KubeError as error:
        raise errors.from_kube(error, "looking for the traffic-manager") from error
    found = sorted({str(item["metadata"]["namespace"]) for item in answer.get("items") or []})
    if wanted and wanted not in found:
        raise errors.no_manager_in(wanted, found)
    if wanted:
        return wanted
    if not found:
        raise errors.no_manager()
    if len(found) > 1:
        raise errors.several_managers(found)
    return found[0]


def choose(pods: Sequence[Object], namespace: str) -> Object:
    """The newest pod that is ready. Raises `SessionError` with the reason when none is."""
    ready = [pod for pod in pods if is_ready(pod)]
    if not ready:
        reasons = {why_not_ready(pod) for pod in pods}
        nothing = f"it has no pod; look with: kubectl -n {namespace} get deploy,rs"
        raise errors.manager_not_ready(namespace, "; ".join(sorted(reasons)) or nothing)
    return max(ready, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))


def _is_going(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    """Whether the pod serves and is not about to go."""
    if _is_going(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def why_not_ready(pod: Object) -> str:
    """The pod's own reason (Kubernetes API: PodStatus, ContainerStatus), short."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if _is_going(pod):
        return f"pod {name} is being deleted"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") and waiting["reason"] not in ("PodInitializing", "ContainerCreating"):
            message = f" ({waiting['message']})" if waiting.get("message") else ""
            return f"{waiting['reason']} in pod {name}, container {container['name']}{message}"
        if ended.get("exitCode"):
            return f"container {container['name']} of pod {name} ended with status {ended['exitCode']}"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name} cannot be scheduled: {condition.get('message') or condition.get('reason')}"
    return f"pod {name} is starting"
