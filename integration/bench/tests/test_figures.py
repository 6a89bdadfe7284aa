from __future__ import annotations

from integration.bench.figures import Verdict, judge
from integration.bench.model import INBOUND, KUBECTL, OUTBOUND, Cell, Run
from integration.bench.table import failed, render


def verdict(run: Run, text: str) -> Verdict:
    (found,) = [verdict for verdict in judge(run) if verdict.text == text]
    return found


def run_of(ours: dict[str, float], theirs: dict[str, float], rtt: int) -> Run:
    return Run("now", cells=[Cell(OUTBOUND, rtt, ours), Cell(KUBECTL, rtt, theirs)])


def test_bulk_is_judged_by_the_ratio_at_the_same_round_trip_time() -> None:
    slow = run_of({"bulk_down_mbs": 60.0}, {"bulk_down_mbs": 20.0}, 20)
    judged = verdict(slow, "bulk down at 20 ms, times kubectl")
    assert (judged.measured, judged.holds) == (3.0, False)
    assert verdict(slow, "bulk down at 0 ms, times kubectl").holds is None
    assert verdict(run_of({"bulk_down_mbs": 80.0}, {"bulk_down_mbs": 20.0}, 20), judged.text).holds is True


def test_a_flow_that_gets_nothing_starves() -> None:
    run = run_of({"flows8_up_slowest_mbs": 0.0, "flows8_up_fastest_mbs": 5.0}, {}, 0)
    assert verdict(run, "flows8 up at 0 ms, slowest flow / fastest").holds is False


def test_any_error_with_256_workers_fails() -> None:
    text = "errors with 256 workers, at 0 ms"
    assert verdict(run_of({"connections256_errors": 0}, {}, 0), text).holds is True
    assert verdict(run_of({"connections256_errors": 1}, {}, 0), text).holds is False


def test_limits_that_are_no_ratio() -> None:
    run = run_of({"connect_s": 1.9, "worker_flows_mb": 19.0, "ping_under_up_p50_ms": 36.0}, {}, 20)
    assert verdict(run, "tpctl connect at 20 ms").holds is True
    assert verdict(run, "worker, 1,000 open idle flows more, at 20 ms").holds is True
    assert verdict(run, "ping-pong p50 beside a bulk flow up at 20 ms").holds is False


def test_the_report_shows_numbers_ratios_verdicts_and_problems() -> None:
    run = run_of({"bulk_down_mbs": 60.0, "idle_mb:worker": 99.0}, {"bulk_down_mbs": 20.0, "bulk_up_mbs": 10.0}, 20)
    run.cells.append(Cell(INBOUND, 20, {"bulk_down_mbs": 40.0}, ["ping: no answer"]))
    verdicts = judge(run)
    text = render(run, verdicts)
    row = next(line for line in text.splitlines() if line.startswith("| bulk down MB/s"))
    # inbound, a download travels up the laptop's line: compared with kubectl's upload
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["bulk down MB/s", "20", "60 (3.0)", "40 (4.0)"]
    assert "| tpctl-outbound, 20 ms | worker  |" in text
    assert "FAIL" in text
    assert "- tpctl-inbound, 20 ms: ping: no answer" in text
    assert failed(verdicts) == 1
