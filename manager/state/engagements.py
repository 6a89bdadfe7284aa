"""Who wins a container. Acceptance, once recorded in the status, is never decided anew."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manager.state.injection import NotInjectable, Wish, inject
from manager.state.model import Engagement, EngagementPhase, Session, Target
from manager.state.policy import BEFORE_POLICY, BEFORE_POLICY_MESSAGE, PolicyWatch


class Outcome(enum.Enum):
    """What becomes of an engagement now."""

    ACCEPT = enum.auto()
    FAIL = enum.auto()
    DELETE = enum.auto()
    """Its session is gone, and so is it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and what the user reads about it."""

    outcome: Outcome
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """Everything that a verdict depends on."""

    namespace: str
    """The manager's: engagements of other managers are not ours to judge."""
    sessions: Mapping[str, Session]
    """Live sessions by uid."""
    policy: PolicyWatch
    templates: Mapping[Target, Mapping[str, Any] | None]
    """Pod templates of the workloads of pending engagements; None: no such workload. Unknown ones wait."""
    unreadable: Mapping[Target, str]
    """Workloads that the API server does not let the manager read, and its reason."""
    untouched: frozenset[str]
    """Namespaces in whose pods the webhook puts nothing."""
    elsewhere: frozenset[str]
    """Namespaces of other traffic-managers that live."""
    wish: Callable[[Target], Wish]
    """What a pod of this workload would become, without containers and ports."""


def ours(engagements: Iterable[Engagement], namespace: str) -> list[Engagement]:
    """Those of this manager's sessions, oldest first (equal creation times: by uid)."""
    return sorted(
        (engagement for engagement in engagements if engagement.session_namespace == namespace),
        key=lambda engagement: (engagement.created, engagement.uid),
    )


def judge(engagements: Iterable[Engagement], claims: Claims) -> dict[str, Verdict]:
    """Verdicts by uid, for those about which something is to be done now."""
    engagements = list(engagements)
    mine = ours(engagements, claims.namespace)
    holders = {engagement.claim: engagement for engagement in mine if engagement.phase.holds}
    # A pod has one agent, and that one manager: another manager's workloads are taken as a whole.
    rivals = {
        each.target: each for each in engagements if each.phase.holds and each.session_namespace in claims.elsewhere
    }
    verdicts: dict[str, Verdict] = {}
    for engagement in mine:
        verdict = _ended(engagement, claims)
        if verdict is None and engagement.phase is EngagementPhase.PENDING:
            verdict = _judge_pending(engagement, holders, rivals, claims)
            if verdict is not None and verdict.outcome is Outcome.ACCEPT:
                holders[engagement.claim] = engagement
        if verdict is not None:
            verdicts[engagement.uid] = verdict
    return verdicts


def _ended(engagement: Engagement, claims: Claims) -> Verdict | None:
    return None if engagement.session_uid in claims.sessions else Verdict(Outcome.DELETE)


def _judge_pending(
    engagement: Engagement,
    holders: Mapping[tuple[Target, str], Engagement],
    rivals: Mapping[Target, Engagement],
    claims: Claims,
) -> Verdict | None:
    trusted = claims.policy.trusts(engagement.created)
    if trusted is None:
        return None
    if not trusted:
        return Verdict(Outcome.FAIL, BEFORE_POLICY, BEFORE_POLICY_MESSAGE)
    session = claims.sessions[engagement.session_uid]
    if session.user != engagement.user:
        return Verdict(
            Outcome.FAIL, "NotYourSession", f"The session belongs to {session.user}; engage with a session of your own."
        )
    if engagement.target not in claims.templates.keys() | claims.unreadable.keys():
        return None
    beside = [each for (target, _), each in holders.items() if target == engagement.target]
    problem = _problem(engagement, [each for each in beside if each.claim != engagement.claim], claims)
    if problem is not None:
        return problem
    holder = holders.get(engagement.claim)
    if holder is not None:
        return Verdict(Outcome.FAIL, "Conflict", conflict_message(holder, claims.sessions.get(holder.session_uid)))
    rival = rivals.get(engagement.target)
    if rival is not None:
        through = f"That is engagement {rival.name} of the traffic-manager in namespace {rival.session_namespace}."
        return Verdict(Outcome.FAIL, "Conflict", f"{conflict_message(rival, None)} {through}")
    return Verdict(Outcome.ACCEPT)


def conflict_message(holder: Engagement, session: Session | None) -> str:
    """Who has the container, from where, since when."""
    where = f" ({session.host})" if session is not None and session.host else ""
    since = f" since {holder.accepted_at}" if holder.accepted_at else ""
    return (
        f"Container {holder.container} of {holder.target.kind.lower()} {holder.target.name} is "
        f"replaced by {holder.user}{where}{since}."
    )


def _problem(engagement: Engagement, beside: Sequence[Engagement], claims: Claims) -> Verdict | None:
    """Why this workload cannot be engaged so, whoever asks. `beside`: those who hold other containers of it."""
    target = engagement.target
    name = f"{target.kind.lower()} {target.name}"
    if target.namespace in claims.untouched:
        return Verdict(
            Outcome.FAIL, "NamespaceLeftAlone", f"No agent is put into pods of namespace {target.namespace}."
        )
    if target in claims.unreadable:
        why = claims.unreadable[target]
        return Verdict(Outcome.FAIL, "WorkloadUnreadable", f"The traffic-manager cannot read {name}: {why}")
    template = claims.templates[target]
    if template is None:
        return Verdict(Outcome.FAIL, "WorkloadNotFound", f"There is no {name} here.")
    numbers = [port for port, _ in engagement.ports]
    if any(not 0 < number < 65536 for number in numbers):
        return Verdict(Outcome.FAIL, "BadPort", "A port must lie between 1 and 65535.")
    if len(set(engagement.ports)) != len(engagement.ports):
        return Verdict(Outcome.FAIL, "BadPort", "A port is named twice.")
    for container in (template.get("spec") or {}).get("containers") or ():
        declared = {(port["containerPort"], port.get("protocol") or "TCP") for port in container.get("ports") or ()}
        taken = declared & set(engagement.ports)
        if taken and container["name"] != engagement.container:
            number = min(taken)[0]
            return Verdict(Outcome.FAIL, "BadPort", f"Port {number} belongs to container {container['name']}.")
    for other in beside:
        if set(engagement.ports) & set(other.ports):
            number = min(set(engagement.ports) & set(other.ports))[0]
            why = f"Port {number} goes to {other.user} already, who replaces container {other.container}."
            return Verdict(Outcome.FAIL, "Conflict", why)
    # Their pods will have one agent for all: what it could not be is refused now, not when a pod has gone.
    wish = dataclasses.replace(
        claims.wish(target),
        containers=frozenset({engagement.container, *(other.container for other in beside)}),
        ports=frozenset({*numbers, *(port for other in beside for port, _ in other.ports)}),
    )
    try:
        inject({"metadata": template.get("metadata") or {}, "spec": template.get("spec") or {}}, wish)
    except NotInjectable as error:
        return Verdict(Outcome.FAIL, "NotInjectable", str(error))
    return None


def wishes(engagements: Iterable[Engagement], namespace: str) -> dict[Target, list[Engagement]]:
    """The accepted engagements of each workload."""
    result: dict[Target, list[Engagement]] = {}
    for engagement in ours(engagements, namespace):
        if engagement.phase.holds:
            result.setdefault(engagement.target, []).append(engagement)
    return result
