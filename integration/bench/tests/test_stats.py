from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from integration.bench.stats import latency, percentile


def test_nearest_rank() -> None:
    samples = [float(n) for n in range(1, 101)]
    assert percentile(samples, 0.5) == 50
    assert percentile(samples, 0.99) == 99
    assert percentile(samples, 1) == 100
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_at_least_that_share_does_not_exceed_it(samples: list[float], share: float) -> None:
    value = percentile(samples, share)
    assert value in samples
    assert value is not None
    assert sum(sample <= value for sample in samples) >= share * len(samples) - 1e-9


def test_latency_is_in_milliseconds() -> None:
    assert latency([0.001, 0.002, 0.010]) == {"p50_ms": 2.0, "p99_ms": 10.0, "max_ms": 10.0, "samples": 3}
    assert latency([])["p50_ms"] is None
