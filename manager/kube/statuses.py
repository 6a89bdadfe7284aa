"""What an engagement's status says, and what its agents may serve, as plans and pods stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manager.registry import Agents
from manager.state.injection import agent_config
from manager.state.model import Engagement, EngagementPhase, PodView, ServingPod
from manager.state.pods import Plan
from tunnel.proto import manager_pb2


def grants_for(pod: PodView, engagements: Sequence[Engagement], lease: float) -> manager_pb2.AgentGrants:
    """What the agent of this pod may serve: the accepted engagements on containers whose place it has."""
    return manager_pb2.AgentGrants(
        lease_seconds=lease,
        grants=[
            manager_pb2.Grant(
                engagement=engagement.uid,
                session=engagement.session_uid,
                mode=engagement.mode.lower(),
                container=engagement.container,
                ports=[manager_pb2.GrantPort(port=port, protocol=protocol) for port, protocol in engagement.ports],
            )
            for engagement in engagements
            if engagement.container in pod.replaced
        ],
    )


def serving_pods(
    engagement: Engagement, pods: Sequence[PodView], items: Mapping[str, Mapping[str, Any]], agents: Agents
) -> tuple[ServingPod, ...]:
    """The pods whose agents serve it: those that attend, and those that did before this manager started."""
    before = {pod.uid: pod for pod in engagement.pods}
    result = []
    for pod in pods:
        if pod.terminating or pod.finished or engagement.container not in pod.replaced:
            continue
        attendance = agents[pod.uid]
        if attendance is not None:
            config = agent_config(items[pod.uid])
            port = attendance.port or (config.agent_port if config else 0)
            result.append(ServingPod(pod.name, pod.uid, pod.address or attendance.address, port))
        elif pod.uid in before:
            result.append(before[pod.uid])
    return tuple(sorted(result, key=lambda pod: pod.name))


def status_of(
    engagement: Engagement, plan: Plan, serving: tuple[ServingPod, ...], *, attempted: bool
) -> dict[str, Any]:
    """What is to be written; empty when the status says it already.

    Active is for good: a workload that rolls out or a pod that restarts does not take it back. A plan that failed
    fails only what was not active yet.
    """
    phase, reason, message = engagement.phase, "", ""
    if plan.failed and phase is EngagementPhase.ACCEPTED:
        phase, reason = EngagementPhase.FAILED, "NoAgent"
        message = f"The container could not be replaced: {plan.failed}."
    elif plan.failed:
        reason, message = "Incomplete", f"Not every pod serves it: {plan.failed}."
    elif plan.fulfilled and serving:
        phase = EngagementPhase.ACTIVE
    elif plan.waiting_for:
        reason, message = "Waiting", f"Waiting for {plan.waiting_for}."
    status: dict[str, Any] = {
        "phase": phase.value,
        "reason": reason,
        "message": message,
        "attempts": engagement.attempts + int(attempted),
        "pods": [
            {"name": pod.name, "uid": pod.uid, "address": pod.address, "port": pod.port}
            for pod in (serving if phase.holds else ())
        ],
    }
    same = (
        phase is engagement.phase
        and reason == engagement.reason
        and message == engagement.message
        and not attempted
        and serving == engagement.pods
    )
    return {} if same else status
