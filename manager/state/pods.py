"""One pod at a time into a replace and out of it again: which pod of a workload is to be evicted next, if any.

Level-triggered: each step sees what there is. What it remembers between steps (`Rollover`) only paces it: after an
eviction the next waits until the evicted pod's successor is there and serves. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from manager.state.model import PodView

SUCCESSOR_DEADLINE = 30.0
"""Seconds in which the workload's controller must create a successor."""
TROUBLE_GRACE = 15.0
"""Seconds for which an agent that cannot start may go on trying (an image pull that fails once, say)."""
FRUITLESS_LIMIT = 3
"""Successors that came without what was wished for, before the wish is given up."""
RETRY_LEAVING = 30.0
"""Seconds before pods are given back again where giving them back has failed."""
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
    fulfilled: bool = False
    """No pod of the workload differs from the wish, and no original runs any more."""


@dataclass(slots=True)
class _Turn:
    """An eviction whose successor is awaited."""

    pod: PodView
    at: float
    known: frozenset[str]
    """Pods that were there before."""


@dataclass(slots=True)
class Rollover:
    """The memory of one workload's coming and going."""

    deadline: float
    """Seconds that an agent has to report after its pod appeared."""
    wanted: frozenset[str] = frozenset()
    rolling: bool = False
    """Evictions are forbidden; the workload's own rollout does it."""
    _turn: _Turn | None = None
    _fruitless: int = 0
    _first_seen: dict[str, float] = field(default_factory=dict)
    _paused_until: float = 0.0

    def evicted(self, pod: PodView, pods: Iterable[PodView], now: float) -> None:
        """The pod was evicted (or the rollout that replaces it was begun)."""
        self._turn = _Turn(pod, now, frozenset(each.uid for each in pods))

    def give_up(self, why: str, now: float) -> Plan:
        """Nothing can be evicted."""
        return self._give_up_or(Plan(failed=why), now)

    def step(self, wanted: frozenset[str], pods: Sequence[PodView], attended: Collection[str], now: float) -> Plan:
        """Plan for a workload of which the containers `wanted` are to be replaced.

        attended: uids of the pods whose agent reports.
        """
        if wanted != self.wanted:
            self.wanted, self._turn, self._fruitless, self._paused_until = wanted, None, 0, 0.0
            self.rolling = False
            self._first_seen = {}
        self._first_seen = {pod.uid: self._first_seen.get(pod.uid, now) for pod in pods}
        live = [pod for pod in pods if not pod.terminating and not pod.finished]
        wrong = [pod for pod in live if pod.replaced != wanted]
        unserved = [
            pod for pod in live if pod.replaced == wanted and not (pod.uid in attended if wanted else pod.ready)
        ]
        if not wrong:
            return self._all_right(wanted, pods, live, unserved, now)
        if now < self._paused_until:
            return Plan(look_again=self._paused_until - now)
        waiting = self._await_turn(wrong, unserved, live, now)
        if waiting is not None:
            return self._give_up_or(waiting, now)
        # The least useful first, then the order of names, so that a second manager would choose the same.
        return Plan(evict=min(wrong, key=lambda pod: (pod.ready, pod.name)))

    def _all_right(
        self,
        wanted: frozenset[str],
        pods: Sequence[PodView],
        live: Sequence[PodView],
        unserved: Sequence[PodView],
        now: float,
    ) -> Plan:
        # Between an eviction and its successor no pod is wrong either: the turn goes on until something serves.
        originals = [pod for pod in pods if not pod.finished and wanted & pod.running]
        served = len(live) - len(unserved)
        if not wanted or (served and not originals):
            self._turn, self._fruitless, self.rolling = None, 0, False
            return Plan(fulfilled=True)
        waiting = self._await_agent(unserved, now) if unserved else self._await_successor(now)
        if originals and not waiting.failed:
            return Plan(look_again=waiting.look_again, waiting_for=f"the original in pod {originals[0].name} to end")
        return self._give_up_or(waiting, now)

    def _await_successor(self, now: float) -> Plan:
        """Wait for the workload's controller to make a pod, after an eviction not for ever."""
        turn = self._turn
        if turn is None:
            return Plan(waiting_for="a pod of the workload")
        left = turn.at + SUCCESSOR_DEADLINE - now
        if left <= 0:
            return Plan(failed=f"no successor of pod {turn.pod.name} was created")
        return Plan(look_again=left, waiting_for=f"the successor of pod {turn.pod.name}")

    def _await_turn(
        self, wrong: Sequence[PodView], unserved: Sequence[PodView], live: Sequence[PodView], now: float
    ) -> Plan | None:
        """What the last eviction still has to bring; None when the next may go."""
        turn = self._turn
        if turn is not None:
            successors = [pod for pod in live if pod.uid not in turn.known]
            if not successors:
                if any(pod.uid == turn.pod.uid for pod in wrong) and not self.rolling:
                    # Evicted, but not seen to go yet; if it never goes, it is evicted again.
                    left = turn.at + SUCCESSOR_DEADLINE - now
                    return Plan(look_again=left, waiting_for=f"pod {turn.pod.name} to end") if left > 0 else None
                return self._await_successor(now)
            if not self.rolling and any(pod.replaced != self.wanted for pod in successors):
                self._fruitless += 1
                self._turn = None
                if self._fruitless >= FRUITLESS_LIMIT:
                    what = "without the agent" if self.wanted else "with an agent"
                    return Plan(
                        failed=f"pod {successors[0].name} was created {what}; "
                        "the API server does not seem to reach the traffic-manager's webhook"
                    )
                return None
        if unserved:
            return self._await_agent(unserved, now)
        if self.rolling:
            return Plan(look_again=1.0, waiting_for="the workload's rollout")
        self._turn = None
        return None

    def _await_agent(self, unserved: Sequence[PodView], now: float) -> Plan:
        """Wait for these pods to serve, each for as long as it may take."""
        what = "its agent" if self.wanted else "it to be ready"
        for pod in unserved:
            age = now - self._first_seen[pod.uid]
            if pod.trouble and (pod.hopeless or age > TROUBLE_GRACE):
                return Plan(failed=f"pod {pod.name} does not start: {pod.trouble}")
            if age > self.deadline:
                missing = "its agent did not report" if self.wanted else "it was not ready"
                return Plan(failed=f"pod {pod.name}: {missing} within {self.deadline:.0f} seconds")
        pod = unserved[0]
        return Plan(look_again=1.0, waiting_for=f"pod {pod.name} and {what}")

    def _give_up_or(self, plan: Plan, now: float) -> Plan:
        """After a failure nothing is evicted for a while: no loop, whatever becomes of the wish."""
        if plan.failed:
            self._paused_until = now + (RETRY_ENTERING if self.wanted else RETRY_LEAVING)
            self._turn, self._fruitless, self.rolling = None, 0, False
        return plan
