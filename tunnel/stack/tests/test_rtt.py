"""RFC 6298 by example."""

from __future__ import annotations

import pytest

from tunnel.stack.rtt import RttEstimator


def test_before_and_after_the_first_sample() -> None:
    rtt = RttEstimator(1.0, 0.1, 60.0)
    assert rtt.rto == 1.0
    rtt.sample(0.2)
    assert rtt.rto == pytest.approx(0.2 + 4 * 0.1)
    rtt.sample(0.2)
    assert rtt.rto == pytest.approx(0.2 + 4 * 0.075)


def test_bounds() -> None:
    rtt = RttEstimator(1.0, 0.3, 10.0)
    rtt.sample(0.00005)
    assert rtt.rto == 0.3
    rtt.sample(100.0)
    assert rtt.rto == 10.0


def test_backoff_doubles_until_progress() -> None:
    rtt = RttEstimator(1.0, 0.3, 5.0)
    for expected in (2.0, 4.0, 5.0, 5.0):
        rtt.back_off()
        assert rtt.rto == expected
    rtt.progress()
    assert rtt.rto == 1.0
