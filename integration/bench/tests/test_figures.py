from __future__ import annotations

from integration.bench.figures import Source, Verdict, judge
from integration.bench.model import INBOUND, KUBECTL, OUTBOUND, Cell, Run
from integration.bench.table import failed, render


def everything(source: Source) -> bool:
    return True


def nothing(source: Source) -> bool:
    return False


def verdict(run: Run, text: str) -> Verdict:
    (found,) = [verdict for verdict in judge(run, nothing) if verdict.text == text]
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
    verdicts = judge(run, nothing)
    text = render(run, verdicts)
    row = next(line for line in text.splitlines() if line.startswith("| bulk down MB/s"))
    # inbound, a download travels up the laptop's line: compared with kubectl's upload
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["bulk down MB/s", "20", "60 (3.0)", "40 (4.0)"]
    assert "| tpctl-outbound, 20 ms | worker  |" in text
    assert "FAIL" in text
    assert "- tpctl-inbound, 20 ms: ping: no answer" in text
    assert failed(run, verdicts) == 2  # one figure, one problem


def test_what_was_to_be_measured_and_was_not_is_missed() -> None:
    never_connected = Run("now", cells=[Cell(OUTBOUND, 20, problems=["tpctl connect: refused"])])
    judged = judge(never_connected, everything)
    assert failed(never_connected, judged) == len(judged) + 1
    assert "NOT MEASURED" in render(never_connected, judged)
    only_dns = judge(Run("now"), lambda source: source.measurement == "dns")
    assert failed(Run("now"), only_dns) == 0
    text = "bulk down at 20 ms, times kubectl"
    only_ours = judge(Run("now"), lambda source: source.path == OUTBOUND)
    assert [each.asked for each in only_ours if each.text == text] == [False]  # there is nothing to compare it with


def test_problems_of_kubectl_are_its_own() -> None:
    run = Run("now", cells=[Cell(KUBECTL, 0, problems=["connections256: {'TIMEOUT': 3}"])])
    assert failed(run, judge(run, nothing)) == 0
