"""Since when the API server's admission policies keep false names out.

A new policy takes up to 0.8 s to work (measured), and a changed one as long; until then objects under any name get
in. So an object counts only when it was created after that moment, told by the API server's own clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manager.state.model import parse_time

SETTLING = 2.0
"""Seconds after a policy's last change from which it works for certain."""

BEFORE_POLICY = "CreatedBeforePolicy"
BEFORE_POLICY_MESSAGE = "It was created before the cluster's admission policies worked; try again."


def last_change(policies: Iterable[Mapping[str, Any]]) -> float:
    """When the newest of these policies and bindings was created or changed (managedFields; not its status)."""
    times = [0.0]
    for policy in policies:
        metadata = policy.get("metadata") or {}
        times.append(parse_time(metadata.get("creationTimestamp")))
        times += [
            parse_time(entry.get("time"))
            for entry in metadata.get("managedFields") or ()
            if entry.get("subresource") != "status"
        ]
    return max(times)


class PolicyWatch:
    """What the probes have shown so far."""

    def __init__(self) -> None:
        self.works_since: float | None = None
        """Objects created after this Unix second are under honest names; None: accept nothing."""
        self.changed = -1.0
        """When the policies last changed, as of the last refusal."""
        self._failed = False

    def refused(self, changed: float, now: float) -> None:
        """A false name was refused; the policies last changed at `changed`; it is `now` on the API server's clock."""
        if self.works_since is None or changed != self.changed:
            # After a false name was let in, whatever the policies say about their age: only what comes now is honest.
            self.works_since = now if self._failed else min(now, changed + SETTLING)
            self.changed = changed
            self._failed = False

    def admitted(self) -> None:
        """A false name was let in, or nobody knows: accept nothing."""
        self.works_since = None
        self._failed = True

    def trusts(self, created: float) -> bool | None:
        """Whether an object created then is under an honest name; None: nobody can tell now."""
        return None if self.works_since is None else created > self.works_since
