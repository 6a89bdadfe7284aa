"""Percentiles of samples. Pure; imported by the load generator, so standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(samples: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: the smallest sample that at least `share` (0..1) of all do not exceed."""
    if not samples:
        return None
    ranked = sorted(samples)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def latency(samples: Sequence[float]) -> dict[str, float | int | None]:
    """Samples in seconds as milliseconds: p50, p99, the worst, and how many there were."""

    def milliseconds(share: float) -> float | None:
        value = percentile(samples, share)
        return None if value is None else round(value * 1000, 3)

    return {
        "p50_ms": milliseconds(0.5),
        "p99_ms": milliseconds(0.99),
        "max_ms": milliseconds(1),
        "samples": len(samples),
    }
