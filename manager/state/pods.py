"""One pod at a time into a replace and out of it again: which pod of a workload is to be evicted next, if any.

Level-triggered: each step sees what there is. What it remembers between steps (`Rollover`) only paces it: after an
eviction the next waits until the evicted pod's successor is there and serves. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from manager.state.model import PodView

SUCCESSOR_DEADLINE = 30.0
"""Seconds in which the workload's controller must create a successor once the pod is gone."""
OVERDUE = 3.0
"""Seconds without a successor after which the workload may know why."""
READY_GRACE = 30.0
"""Seconds that a new pod may take to be ready before the next goes all the same: its other containers may wait for the
laptop's process, or never have been ready."""
TROUBLE_GRACE = 15.0
"""Seconds for which an agent that cannot start may go on trying (an image pull that fails once, say)."""
BUDGET_PATIENCE = 15.0
"""Seconds for which a disruption budget may say no before the workload rolls out: it counts a new pod late."""
ROLLOUT_DEADLINE = 300.0
"""Seconds without any pod coming or going after which a rollout has stopped half-way."""
FRUITLESS_LIMIT = 3
"""Successors that came without what was wished for, before the wish is given up."""
RETRY_LEAVING = 30.0
"""Seconds before giving pods back is tried again where it has failed; twice as long each time, up to an hour."""
RETRY_ENTERING = 600.0
"""Seconds before a pod of an active engagement that came without agent is evicted again, if nothing changes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    evict: PodView | None = None
    failed: str = ""
    """The wish cannot be fulfilled, and why."""
    look_again: float | None = None
    """Seconds after which time alone may change the plan."""
    waiting_for: str = ""
    """What is being waited for, for the user."""
    overdue: bool = False
    """It is waited for a successor longer than one takes: the workload may say why."""
    fulfilled: bool = False
    """No pod of the workload differs from the wish, and no original runs any more."""


@dataclass(slots=True)
class _Turn:
    """An eviction whose successor is awaited, or a rollout."""

    pod: PodView
    at: float
    wanted: frozenset[str]
    known: frozenset[str]
    """Pods that were there before."""
    rolling: bool
    """Evictions are forbidden; the workload's own rollout does it."""
    present: frozenset[str]
    """Pods that there are now."""
    gone_at: float | None = None
    """When the evicted pod had disappeared."""
    given_up: bool = False
    """Its successor was waited for once in vain."""


@dataclass(slots=True)
class Rollover:
    """The memory of one workload's coming and going."""

    deadline: float
    """Seconds that an agent has to report after its pod appeared."""
    in_place: bool = False
    """A successor comes only when its predecessor is gone (StatefulSet, DaemonSet), not beside it."""
    wanted: frozenset[str] = frozenset()
    _turn: _Turn | None = None
    _held_since: float | None = None
    """Since when a disruption budget says no."""
    _fruitless: int = 0
    _first_seen: dict[str, float] = field(default_factory=dict)
    _why: str = ""
    """Why nothing is evicted until then."""
    _paused_until: float = 0.0
    _failures: int = 0
    """How often giving back has failed."""

    def evicted(self, pod: PodView, pods: Iterable[PodView], now: float, *, rolling: bool = False) -> None:
        """The pod was evicted, or the rollout that replaces it was begun."""
        known = frozenset(each.uid for each in pods)
        self._turn = _Turn(pod, now, self.wanted, known, rolling, known)
        self._held_since = None

    def held(self, now: float) -> None:
        """A disruption budget said no."""
        if self._held_since is None:
            self._held_since = now

    def patient(self, pods: Sequence[PodView], now: float) -> bool:
        """Whether a pod that a budget keeps may go soon: not the only one of a workload, unless its agent serves nobody
        and will not be ready in a moment; and not for ever."""
        return (len(pods) > 1 or not self.wanted) and (
            self._held_since is None or now - self._held_since < BUDGET_PATIENCE
        )

    def give_up(self, why: str, now: float) -> Plan:
        """Nothing can be evicted, or nothing comes after it."""
        return self._give_up_or(Plan(failed=why), now)

    def step(self, wanted: frozenset[str], pods: Sequence[PodView], attended: Collection[str], now: float) -> Plan:
        """Plan for a workload of which the containers `wanted` are to be replaced.

        attended: uids of the pods whose agent reports.
        """
        if wanted != self.wanted:
            self.wanted, self._fruitless, self._failures = wanted, 0, 0
            self._paused_until, self._why, self._held_since = 0.0, "", None
            self._first_seen = {}
            # What was evicted is away, whatever is wanted now; a rollout makes what is wanted now by itself.
            if self._turn is not None and self._turn.rolling:
                self._turn = None
        self._first_seen = {pod.uid: self._first_seen.get(pod.uid, now) for pod in pods}
        self._follow_turn(pods, now)
        live = [pod for pod in pods if not pod.terminating and not pod.finished]
        wrong = [pod for pod in live if pod.replaced != wanted]
        right = [pod for pod in live if pod.replaced == wanted]
        unserved = [pod for pod in right if wanted and pod.uid not in attended]
        if not wrong:
            return self._all_right(pods, live, unserved, now)
        if now < self._paused_until:
            return Plan(failed=self._why if wanted else "", look_again=self._paused_until - now)
        # The least useful first; on leave all are alike. Then the order of names, so that a second manager would choose
        # the same, by length first: a StatefulSet makes no pod while one of a lower number is not ready.
        candidate = min(wrong, key=lambda pod: (bool(wanted) and pod.ready, len(pod.name), pod.name))
        waiting = _first(
            self._await_turn(wrong, pods, live, now),
            self._await_agents(unserved, now),
            self._await_ready(right, now),
            self._await_ends(pods, live) if candidate.ready else None,
        )
        return self._give_up_or(waiting, now) if waiting is not None else Plan(evict=candidate)

    def _all_right(
        self, pods: Sequence[PodView], live: Sequence[PodView], unserved: Sequence[PodView], now: float
    ) -> Plan:
        # Between an eviction and its successor no pod is wrong either: the turn goes on until there is one.
        turn = self._turn
        if turn is not None and (turn.rolling or any(pod.uid not in turn.known for pod in live)):
            self._turn = turn = None
        due = self._await_successor(turn, pods, now) if turn is not None else None
        originals = [pod for pod in pods if not pod.finished and self.wanted & pod.running]
        enough = not self.wanted or len(live) > len(unserved)
        if enough and not originals and (due is None or due.failed):  # the workload may have been scaled down
            self._turn, self._fruitless, self._failures = None, 0, 0
            return Plan(fulfilled=True)
        waiting = _first(due, self._await_agents(unserved, now)) or Plan(waiting_for="a pod of the workload")
        if originals and not waiting.failed:
            return Plan(look_again=waiting.look_again, waiting_for=f"the original in pod {originals[0].name} to end")
        return self._give_up_or(waiting, now)

    def _follow_turn(self, pods: Sequence[PodView], now: float) -> None:
        turn = self._turn
        if turn is None:
            return
        present = frozenset(pod.uid for pod in pods)
        if turn.rolling and present != turn.present:
            turn.present, turn.at = present, now
        if turn.gone_at is None and turn.pod.uid not in present:
            turn.gone_at = now

    def _await_turn(
        self, wrong: Sequence[PodView], pods: Sequence[PodView], live: Sequence[PodView], now: float
    ) -> Plan | None:
        """What the last eviction still has to bring; None when that is there."""
        turn = self._turn
        if turn is None:
            return None
        successors = [pod for pod in live if pod.uid not in turn.known]
        if turn.rolling:
            if successors and not any(pod.uid in turn.known for pod in wrong):
                return self._without_wish(successors[0])
            if now - turn.at > ROLLOUT_DEADLINE:
                return Plan(failed=f"the workload's rollout has not gone on for {ROLLOUT_DEADLINE:.0f} seconds")
            return Plan(look_again=1.0, waiting_for="the workload's rollout")
        if not successors:
            return self._await_successor(turn, pods, now)
        self._turn = None
        if turn.wanted == self.wanted and any(pod.replaced != self.wanted for pod in successors):
            self._fruitless += 1
            if self._failures or self._fruitless >= FRUITLESS_LIMIT:
                return self._without_wish(successors[0])
        return None

    def _without_wish(self, pod: PodView) -> Plan:
        what = "without the agent" if self.wanted else "with an agent"
        return Plan(
            failed=f"pod {pod.name} was created {what}; "
            "the API server does not seem to reach the traffic-manager's webhook"
        )

    def _await_successor(self, turn: _Turn, pods: Sequence[PodView], now: float) -> Plan | None:
        """Wait for the evicted pod to end, as long as that takes, and then for its successor, not for ever."""
        name = turn.pod.name
        evicted = next((pod for pod in pods if pod.uid == turn.pod.uid), None)
        if evicted is not None and evicted.terminating:
            return Plan(waiting_for=f"pod {name} to end")
        left = (turn.at if turn.gone_at is None else turn.gone_at) + SUCCESSOR_DEADLINE - now
        if evicted is not None and left > 0:
            return Plan(look_again=left, waiting_for=f"pod {name} to end")  # it was not seen to go yet
        if left > 0:
            overdue = left < SUCCESSOR_DEADLINE - OVERDUE and not turn.given_up
            return Plan(look_again=min(left, 1.0), waiting_for=f"the successor of pod {name}", overdue=overdue)
        if evicted is not None or turn.given_up:
            self._turn = None
            return None
        return Plan(failed=f"no successor of pod {name} was created")

    def _await_agents(self, unserved: Sequence[PodView], now: float) -> Plan | None:
        """Wait for these pods' agents, each for as long as it may take."""
        for pod in unserved:
            age = now - self._first_seen[pod.uid]
            if pod.trouble and (pod.hopeless or age > TROUBLE_GRACE):
                return Plan(failed=f"pod {pod.name} does not start: {pod.trouble}")
            if age > self.deadline:
                return Plan(failed=f"pod {pod.name}: its agent did not report within {self.deadline:.0f} seconds")
        return Plan(look_again=1.0, waiting_for=f"pod {unserved[0].name} and its agent") if unserved else None

    def _await_ready(self, right: Sequence[PodView], now: float) -> Plan | None:
        """Wait for these pods, but not for ever."""
        for pod in right:
            if not pod.ready and now - self._first_seen[pod.uid] <= READY_GRACE:
                return Plan(look_again=1.0, waiting_for=f"pod {pod.name} to be ready")
        return None

    def _await_ends(self, pods: Sequence[PodView], live: Sequence[PodView]) -> Plan | None:
        """Wait for pods that somebody, maybe a manager before us, sent away: their successors may come only then."""
        ending = [pod for pod in pods if pod.terminating and not pod.finished]
        if not ending:
            return None
        since = min(pod.ending_since for pod in ending)
        successors = [] if self.in_place else [pod for pod in live if pod.ready and pod.created >= since]
        return Plan(waiting_for=f"pod {ending[0].name} to end") if len(successors) < len(ending) else None

    def _give_up_or(self, plan: Plan, now: float) -> Plan:
        """After a failure nothing is evicted for a while: no loop, whatever becomes of the wish."""
        if not plan.failed:
            return plan
        pause = RETRY_ENTERING
        if not self.wanted:
            pause = RETRY_LEAVING * 2 ** min(self._failures, 7)
            self._failures += 1
        self._why, self._paused_until = plan.failed, now + pause
        self._fruitless, self._held_since = 0, None
        turn = self._turn
        if turn is not None and turn.rolling:
            self._turn = None
        elif turn is not None and turn.gone_at is not None:
            turn.gone_at, turn.given_up = now, True  # whatever is wished next gives the successor time once more
        return plan


def _first(*plans: Plan | None) -> Plan | None:
    """What has failed, or else what is to be waited for first."""
    waiting = [plan for plan in plans if plan is not None]
    return next((plan for plan in waiting if plan.failed), waiting[0] if waiting else None)
