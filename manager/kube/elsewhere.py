"""Other traffic-managers of the cluster: the chart allows none, but a rendered one asks nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manager.config import SERVICE

_REMEMBERED = 600.0
"""Seconds for which a manager without a pod may be about to come back."""
_LABELS = {"app.kubernetes.io/name": SERVICE, "app.kubernetes.io/part-of": "tpctl"}


class Elsewhere:
    """The namespaces in which other managers live, or did a moment ago. `now` is monotonic seconds."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._seen: dict[str, float] = {}

    def look(self, pods: Iterable[Mapping[str, Any]], now: float) -> frozenset[str]:
        """By all pods of the cluster."""
        for pod in pods:
            labels = pod["metadata"].get("labels") or {}
            if labels.items() >= _LABELS.items():
                self._seen[str(pod["metadata"]["namespace"])] = now
        return frozenset(
            namespace for namespace, at in self._seen.items() if namespace != self._own and now - at < _REMEMBERED
        )
