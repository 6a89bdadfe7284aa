"""Sessions, engagements and pods as the manager's decisions see them: parsed once, typed, immutable.

The custom resources' fields are described in helm/tpctl/crds; pods in the Kubernetes API (core/v1 Pod).
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manager.state.injection import injected_containers

RENEWED = "tpctl.io/renewed"
"""Annotation on a Session: its worker's sign of life."""


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def is_name(text: str) -> bool:
    """Whether a workload can have this name (RFC 1123 subdomain): what is none must not get into a path."""
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


class SessionPhase(enum.StrEnum):
    """Session.status.phase."""

    PENDING = "Pending"
    ACTIVE = "Active"
    REFUSED = "Refused"
    EXPIRED = "Expired"


class EngagementPhase(enum.StrEnum):
    """Engagement.status.phase. It only goes forward, in this order."""

    PENDING = "Pending"
    ACCEPTED = "Accepted"
    ACTIVE = "Active"
    FAILED = "Failed"

    @property
    def holds(self) -> bool:
        """Whether the container belongs to it."""
        return self in (EngagementPhase.ACCEPTED, EngagementPhase.ACTIVE)


@dataclass(frozen=True, slots=True)
class Session:
    """A Session object."""

    uid: str
    namespace: str
    name: str
    version: str
    """resourceVersion."""
    user: str
    host: str
    public_key: str
    connected_namespace: str
    created: float
    """Unix seconds, whole, by the API server's clock."""
    renewed: str
    phase: SessionPhase
    root: str
    expires_at: float
    """When its certificate ends; 0 without one."""
    manager_pod_uid: str


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A workload."""

    namespace: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class ServingPod:
    """An entry of Engagement.status.pods."""

    name: str
    uid: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Engagement:
    """An Engagement object."""

    uid: str
    namespace: str
    name: str
    version: str
    user: str
    session_namespace: str
    session_name: str
    session_uid: str
    mode: str
    target: Target
    container: str
    ports: tuple[tuple[int, str], ...]
    """(container port, protocol)."""
    created: float
    phase: EngagementPhase
    reason: str
    message: str
    accepted_at: str
    attempts: int
    pods: tuple[ServingPod, ...]

    @property
    def claim(self) -> tuple[Target, str]:
        """What only one engagement can hold."""
        return self.target, self.container


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of an engaged workload."""

    name: str
    uid: str
    namespace: str
    terminating: bool
    finished: bool
    """Succeeded or Failed: nothing of it runs or will run."""
    ready: bool
    replaced: frozenset[str]
    """Containers in whose place the agent is."""
    running: frozenset[str]
    """Containers that run now, by name."""
    address: str
    trouble: str
    """Why it cannot start, as the kubelet or scheduler says; empty while nothing is wrong."""
    hopeless: bool
    """`trouble` does not go away by waiting."""
    created: float
    """Unix seconds, whole, by the API server's clock; so is `ending_since`."""
    ending_since: float
    """When its end was asked for; 0 unless it is terminating."""


def parse_time(text: object) -> float:
    """RFC 3339 to Unix seconds; 0 for what is none."""
    if not isinstance(text, str) or not text:
        return 0.0
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def format_time(seconds: float) -> str:
    """Unix seconds to RFC 3339, whole seconds, UTC."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).isoformat().replace("+00:00", "Z")


def session_of(item: Mapping[str, Any]) -> Session:
    """Parse; whatever is missing is empty."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    phase = status.get("phase") or SessionPhase.PENDING
    return Session(
        uid=str(metadata.get("uid", "")),
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        version=str(metadata.get("resourceVersion", "")),
        user=str(spec.get("user", "")),
        host=str((spec.get("client") or {}).get("host", "")),
        public_key=str(spec.get("publicKey", "")),
        connected_namespace=str(spec.get("namespace", "")),
        created=parse_time(metadata.get("creationTimestamp")),
        renewed=str((metadata.get("annotations") or {}).get(RENEWED, "")),
        phase=SessionPhase(phase) if phase in set(SessionPhase) else SessionPhase.PENDING,
        root=str(status.get("root", "")),
        expires_at=parse_time(status.get("expiresAt")),
        manager_pod_uid=str(status.get("managerPodUid", "")),
    )


def engagement_of(item: Mapping[str, Any]) -> Engagement:
    """Parse; whatever is missing is empty."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    session, workload = spec.get("session") or {}, spec.get("workload") or {}
    namespace = str(metadata.get("namespace", ""))
    phase = status.get("phase") or EngagementPhase.PENDING
    return Engagement(
        uid=str(metadata.get("uid", "")),
        namespace=namespace,
        name=str(metadata.get("name", "")),
        version=str(metadata.get("resourceVersion", "")),
        user=str(spec.get("user", "")),
        session_namespace=str(session.get("namespace", "")),
        session_name=str(session.get("name", "")),
        session_uid=str(session.get("uid", "")),
        mode=str(spec.get("mode", "")),
        target=Target(namespace, str(workload.get("kind", "")), str(workload.get("name", ""))),
        container=str(spec.get("container", "")),
        ports=tuple(
            (int(port["containerPort"]), str(port.get("protocol") or "TCP")) for port in spec.get("ports") or ()
        ),
        created=parse_time(metadata.get("creationTimestamp")),
        phase=EngagementPhase(phase) if phase in set(EngagementPhase) else EngagementPhase.PENDING,
        reason=str(status.get("reason", "")),
        message=str(status.get("message", "")),
        accepted_at=str(status.get("acceptedAt", "")),
        attempts=int(status.get("attempts", 0)),
        pods=tuple(
            ServingPod(str(pod["name"]), str(pod["uid"]), str(pod.get("address", "")), int(pod.get("port", 0)))
            for pod in status.get("pods") or ()
        ),
    )


_HOPELESS = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"}
_WAITING_IN_TROUBLE = _HOPELESS | {"ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff", "RunContainerError"}


def pod_of(item: Mapping[str, Any]) -> PodView:
    """Parse a pod."""
    metadata, status = item["metadata"], item.get("status") or {}
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    trouble, hopeless = _trouble(statuses, conditions.get("PodScheduled") or {})
    # The deletionTimestamp is when the grace period will be over.
    ended = parse_time(metadata.get("deletionTimestamp"))
    grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
    return PodView(
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        namespace=str(metadata.get("namespace", "")),
        terminating="deletionTimestamp" in metadata,
        finished=status.get("phase") in ("Succeeded", "Failed"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        replaced=injected_containers(item),
        running=frozenset(
            str(container.get("name")) for container in statuses if "running" in (container.get("state") or {})
        ),
        address=str(status.get("podIP", "")),
        trouble=trouble,
        hopeless=hopeless,
        created=parse_time(metadata.get("creationTimestamp")),
        ending_since=ended - grace if ended else 0.0,
    )


def _trouble(statuses: list[Mapping[str, Any]], scheduled: Mapping[str, Any]) -> tuple[str, bool]:
    for container in statuses:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason")
        if reason in _WAITING_IN_TROUBLE:
            ended = ((container.get("lastState") or {}).get("terminated") or {}).get("message") or ""
            text = str(ended or waiting.get("message") or "").strip()
            name = container.get("name")
            return f"container {name}: {reason}" + (f": {text[-500:]}" if text else ""), reason in _HOPELESS
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason')}: {scheduled.get('message', '')}".strip(), False
    return "", False
