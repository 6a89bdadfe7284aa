"""Pure. Choosing the container of a workload, and describing workloads for `tpctl list`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tpd.session.errors import SessionError
from tpd.session.kube.paths import WORKLOADS
from tunnel.agentconfig import AGENT_CONTAINER

Object = dict[str, Any]

_ALIASES = {
    alias: kind
    for kind, resource in WORKLOADS.items()
    for alias in (
        kind.lower(),
        resource,
        {"Deployment": "deploy", "StatefulSet": "sts", "ReplicaSet": "rs"}.get(kind, "ds"),
    )
}


_LEFT_ALONE = ("kube-system", "kube-node-lease")
"""Besides the manager's own; the chart's `tpctl.untouchedNamespaces` is what counts."""


def split(text: str) -> tuple[str, str]:
    """`KIND/NAME` or `NAME` as (kind or empty, name). Raises `SessionError` for a kind that cannot be engaged."""
    kind, slash, name = text.rpartition("/")
    if not name:
        raise SessionError("name a workload, as NAME or KIND/NAME")
    if not slash:
        return "", name
    found = _ALIASES.get(kind.lower())
    if found is None:
        raise SessionError(f"{kind!r} is not a kind that can be replaced; kinds are {', '.join(WORKLOADS)}")
    return found, name


def containers(workload: Object) -> list[Object]:
    """The app's containers in the pod template, without our own."""
    template = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    return [c for c in template.get("containers") or [] if c.get("name") != AGENT_CONTAINER]


def choose_container(workload: Object, wanted: str) -> Object:
    """The container called `wanted`, or the only one. Raises `SessionError` that lists what there is."""
    found = containers(workload)
    names = ", ".join(str(c["name"]) for c in found)
    name = f"{workload.get('kind')} {workload['metadata']['name']}"
    if wanted:
        for container in found:
            if container["name"] == wanted:
                return container
        raise SessionError(f"{name} has no container {wanted!r}; it has {names}")
    if len(found) != 1:
        raise SessionError(f"{name} has {len(found)} containers; choose one with --container: {names}")
    return found[0]


def why_not(workload: Object, manager_namespace: str) -> str:
    """Why a workload cannot be engaged, or an empty text."""
    if workload["metadata"].get("namespace") in {*_LEFT_ALONE, manager_namespace}:
        return "the traffic-manager leaves its namespace alone"
    template = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    if template.get("hostNetwork"):
        return "its pods use the host's network"
    if (workload.get("spec") or {}).get("replicas") == 0:
        return "it is scaled to 0 replicas"
    return ""


def unknown(text: str, namespace: str, known: Iterable[str]) -> SessionError:
    """No such workload: name those that look like it."""
    names = sorted(known)
    near = [name for name in names if text.rpartition("/")[2] in name or name in text] or names
    hint = f"; there is {', '.join(near[:8])}{', …' if len(near) > 8 else ''}" if near else "; it has no workloads"
    return SessionError(f"no workload {text!r} in namespace {namespace}{hint}")


def is_owned(workload: Object) -> bool:
    """Whether a ReplicaSet belongs to a Deployment (then only the Deployment is listed)."""
    owners: Sequence[Object] = (workload.get("metadata") or {}).get("ownerReferences") or []
    return any(owner.get("controller") for owner in owners)


def describe(containers_of: Sequence[str], held: Sequence[Object], session_uid: str, reason: str) -> tuple[str, str]:
    """(state, reason) for `tpctl list`. held: the engagements of this workload that are accepted or active."""
    if held:
        parts = []
        for engagement in held:
            spec, status = engagement.get("spec") or {}, engagement.get("status") or {}
            mine = (spec.get("session") or {}).get("uid") == session_uid
            who = "you" if mine else str(spec.get("user") or "somebody")
            since = "" if mine or not status.get("acceptedAt") else f" since {status['acceptedAt']}"
            container = f"{spec.get('container')} " if len(containers_of) > 1 else ""
            parts.append(f"{container}replaced by {who}{since}")
        return "; ".join(parts), ""
    if reason:
        return "not engageable", reason
    return "ready to engage", ""
