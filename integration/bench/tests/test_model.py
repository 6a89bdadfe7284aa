from __future__ import annotations

import pytest

from integration.bench.model import Cell, Run, bulk_values


def flow(size: int, started: float, ended: float, error: str | None = None) -> dict[str, object]:
    return {"size": size, "started": started, "ended": ended, "error": error}


def test_the_clock_runs_from_the_first_start_to_the_last_answer() -> None:
    values, problems = bulk_values("up", {"flows": [flow(30_000_000, 10, 12), flow(30_000_000, 11, 14)]})
    assert values == {"up_mbs": 15.0, "up_slowest_mbs": 10.0, "up_fastest_mbs": 15.0}
    assert problems == []


def test_a_single_flow_has_no_slowest() -> None:
    assert bulk_values("up", {"flows": [flow(1_000_000, 0, 1)]})[0] == {"up_mbs": 1.0}


def test_a_flow_that_got_nothing_is_the_slowest() -> None:
    values, _ = bulk_values("up", {"flows": [flow(1_000_000, 0, 1), flow(0, 0, 1)]})
    assert values["up_slowest_mbs"] == 0.0


@pytest.mark.parametrize("failed", [flow(0, 0, 0, "reset"), flow(9_000_000, 0, 1, "bytes differ")])
def test_beside_a_failed_flow_nothing_counts(failed: dict[str, object]) -> None:
    problem = f"up: 1 of 2 flows: {failed['error']}"
    assert bulk_values("up", {"flows": [flow(1_000_000, 0, 1), failed]}) == ({}, [problem])


def test_nothing_carried_is_no_number() -> None:
    assert bulk_values("up", {"flows": [flow(0, 0, 0, "refused")]}) == ({}, ["up: 1 of 1 flows: refused"])


def test_values_are_found_by_path_and_round_trip_time() -> None:
    run = Run("now", cells=[Cell("kubectl", 20, {"x": 2.0}), Cell("node", 0, {"x": 1.0}), Cell("kubectl", 0)])
    assert run.value("kubectl", 20, "x") == 2.0
    assert run.value("kubectl", 0, "x") is None
    assert run.value("tpctl-outbound", 0, "x") is None
    assert list(run.columns()) == [("node", 0), ("kubectl", 0), ("kubectl", 20)]
