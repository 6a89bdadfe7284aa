"""Objects as the API server gives them, for the tests of the decisions."""

from __future__ import annotations

from typing import Any

from manager.state.model import Engagement, PodView, Session, engagement_of, format_time, session_of
from manager.state.policy import PolicyWatch

NAMESPACE = "tpctl-system"


def session(uid: str = "s1", user: str = "alice", **status: Any) -> Session:
    """An Active session, created at 1000."""
    return session_of(
        {
            "metadata": {
                "uid": uid,
                "namespace": NAMESPACE,
                "name": uid,
                "resourceVersion": "1",
                "creationTimestamp": format_time(1000),
                "annotations": {"tpctl.io/renewed": status.pop("renewed", "")},
            },
            "spec": {"user": user, "client": {"host": f"{user}s-laptop"}, "publicKey": "key", "namespace": "shop"},
            "status": {"phase": "Active", **status},
        }
    )


def engagement(
    uid: str, user: str = "alice", *, session_uid: str = "s1", created: float = 1000, **spec: Any
) -> Engagement:
    """A pending engagement of container app of deployment echo in shop; `phase=…` and the like go to the status."""
    status = {key: spec.pop(key) for key in ("phase", "acceptedAt", "pods", "attempts") if key in spec}
    return engagement_of(
        {
            "metadata": {
                "uid": uid,
                "namespace": "shop",
                "name": uid,
                "resourceVersion": "1",
                "creationTimestamp": format_time(created),
            },
            "spec": {
                "user": user,
                "session": {"namespace": NAMESPACE, "name": session_uid, "uid": session_uid},
                "mode": "Replace",
                "workload": {"kind": "Deployment", "name": "echo"},
                "container": "app",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                **spec,
            },
            "status": status,
        }
    )


def pod(name: str, replaced: str = "", *, running: str = "app", **changes: Any) -> PodView:
    """A ready pod; `replaced` and `running` are names separated by spaces."""
    values: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "namespace": "shop",
        "terminating": False,
        "finished": False,
        "ready": True,
        "replaced": frozenset(replaced.split()),
        "running": frozenset(running.split()),
        "address": "10.0.0.1",
        "trouble": "",
        "hopeless": False,
        "created": 0.0,
        "ending_since": 0.0,
    }
    return PodView(**{**values, **changes})


def working_policy() -> PolicyWatch:
    """A policy that has worked since 900."""
    policy = PolicyWatch()
    policy.refused(898, 950)
    return policy
