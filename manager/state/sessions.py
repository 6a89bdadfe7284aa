"""Which sessions live: leases by the manager's own clock, and what to write into a Session's status."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from manager.state.model import Session, SessionPhase
from manager.state.policy import BEFORE_POLICY, BEFORE_POLICY_MESSAGE, PolicyWatch

KEEP_ENDED = 30.0
"""Seconds for which a refused or expired Session stays to be read before it is deleted."""

RENEW_BELOW = 0.5
"""A certificate is renewed with the lease when less than this share of its life is left."""


class Leases:
    """The last sign of life of each session. `now` is monotonic seconds.

    Only changes that this manager saw count, so after its own start, and after the API server was away (`forgive`),
    every session has a whole lease. Silence alone ends nothing: it may be the watch that is silent. A session ends when
    the API server takes the word `Expired` for the version that was silent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen: dict[str, tuple[str, float]] = {}

    def observe(self, sessions: Iterable[Session], now: float) -> None:
        """Take note of all sessions there are."""
        fresh: dict[str, tuple[str, float]] = {}
        for session in sessions:
            known = self._seen.get(session.uid)
            fresh[session.uid] = known if known and known[0] == session.renewed else (session.renewed, now)
        self._seen = fresh

    def forgive(self, now: float) -> None:
        """Nobody could renew until now."""
        self._seen = {uid: (renewed, now) for uid, (renewed, _) in self._seen.items()}

    def silence(self, uid: str, now: float) -> float:
        """Seconds since the last sign of life; 0 for a session not observed yet."""
        known = self._seen.get(uid)
        return now - known[1] if known else 0.0

    def next_end(self, now: float) -> float | None:
        """Seconds until the next lease ends or an ended session is to be deleted; None without sessions."""
        ends = [
            end
            for _, at in self._seen.values()
            for end in (at + KEEP_ENDED - now, at + self.seconds - now, at + self.seconds + KEEP_ENDED - now)
            if end > 0
        ]
        return min(ends, default=None)


class Step(enum.Enum):
    """What to do with a session now."""

    NOTHING = enum.auto()
    ACCEPT = enum.auto()
    """Sign its key and make it Active."""
    REFUSE = enum.auto()
    SIGN = enum.auto()
    """Renew the certificate of an Active session."""
    ADOPT = enum.auto()
    """Write which manager serves it now."""
    EXPIRE = enum.auto()
    DELETE = enum.auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """A step and what the user reads about it."""

    step: Step
    reason: str = ""
    message: str = ""


NOTHING = Decision(Step.NOTHING)


def decide(
    session: Session,
    *,
    silence: float,
    lease: float,
    policy: PolicyWatch,
    pod_uid: str,
    root_pem: str,
    certificate_life: float,
    wall: float,
) -> Decision:
    """What to do now. `silence` and `lease` in seconds; `wall` Unix seconds; `pod_uid` and `root_pem` are our own."""
    if session.phase is SessionPhase.ACTIVE:
        if silence > lease:
            return Decision(
                Step.EXPIRE, "LeaseEnded", f"The laptop was not heard of for {lease:.0f} seconds; connect again."
            )
        if session.root != root_pem:
            return Decision(Step.SIGN)
        # Only a renewed lease renews the certificate.
        if session.expires_at - wall < certificate_life * RENEW_BELOW and silence < lease / 3:
            return Decision(Step.SIGN)
        return Decision(Step.ADOPT) if session.manager_pod_uid != pod_uid else NOTHING
    if session.phase is SessionPhase.PENDING:
        trusted = policy.trusts(session.created)
        if trusted is None:
            return NOTHING
        if not trusted:
            return Decision(Step.REFUSE, BEFORE_POLICY, BEFORE_POLICY_MESSAGE)
        return Decision(Step.ACCEPT)
    ended = 0.0 if session.phase is SessionPhase.REFUSED else lease
    return Decision(Step.DELETE) if silence > ended + KEEP_ENDED else NOTHING
