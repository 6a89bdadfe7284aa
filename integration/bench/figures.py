"""The figures tpctl must reach, each judged from one run. Ratios are within the run: machines differ. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from integration.bench.model import INBOUND, KUBECTL, OUTBOUND, Run

FAST, LONG = 0, 20
"""The two round-trip times, in ms, that the figures speak of."""


@dataclass(frozen=True)
class Verdict:
    """One figure: what was asked, what was measured, whether it holds (None: not measured)."""

    text: str
    measured: float | None
    limit: float
    at_least: bool
    unit: str

    @property
    def holds(self) -> bool | None:
        """Whether the measured value is on the right side of the limit."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def judge(run: Run) -> list[Verdict]:
    """Every figure, in the order of the document."""
    parts = (_bulk, _latency, _latency_under_load, _connections, _commands, _footprint)
    return [verdict for part in parts for verdict in part(run)]


def _ratio(run: Run, name: str, rtt: int) -> float | None:
    ours, theirs = run.value(OUTBOUND, rtt, name), run.value(KUBECTL, rtt, name)
    return None if ours is None or not theirs else round(ours / theirs, 2)


def _bulk(run: Run) -> Iterator[Verdict]:
    for rtt, name, limit in [
        (FAST, "bulk_down", 1.3),
        (FAST, "bulk_up", 1.1),
        (LONG, "bulk_down", 4.0),
        (LONG, "bulk_up", 4.0),
        (LONG, "flows8_down", 2.5),
        (LONG, "flows8_up", 2.5),
    ]:
        text = f"{name.replace('_', ' ')} at {rtt} ms, times kubectl"
        yield Verdict(text, _ratio(run, f"{name}_mbs", rtt), limit, True, "x")
    for rtt in (FAST, LONG):
        for name in ("flows8_down", "flows8_up", "flows64_down", "flows64_up"):
            slowest, fastest = (run.value(OUTBOUND, rtt, f"{name}_{which}_mbs") for which in ("slowest", "fastest"))
            share = None if slowest is None or not fastest else round(slowest / fastest, 2)
            yield Verdict(f"{name.replace('_', ' ')} at {rtt} ms, slowest flow / fastest", share, 0.2, True, "x")


def _latency(run: Run) -> Iterator[Verdict]:
    yield Verdict("ping-pong p50 at 0 ms, times kubectl", _ratio(run, "ping_p50_ms", FAST), 2.0, False, "x")
    yield Verdict("new connection + GET p50 at 0 ms, times kubectl", _ratio(run, "get_p50_ms", FAST), 1.2, False, "x")
    value = run.value(OUTBOUND, LONG, "get_p50_ms")
    yield Verdict("new connection + GET p50 at 20 ms", value, 2 * LONG + 3.0, False, "ms")


def _latency_under_load(run: Run) -> Iterator[Verdict]:
    for direction in ("down", "up"):
        for rtt, which, limit in [(FAST, "p50", 5.0), (FAST, "p99", 25.0), (LONG, "p50", 35.0)]:
            value = run.value(OUTBOUND, rtt, f"ping_under_{direction}_{which}_ms")
            yield Verdict(f"ping-pong {which} beside a bulk flow {direction} at {rtt} ms", value, limit, False, "ms")


def _connections(run: Run) -> Iterator[Verdict]:
    for rtt in (FAST, LONG):
        ratio = _ratio(run, "connections32_per_s", rtt)
        yield Verdict(f"new connections/s with 32 workers at {rtt} ms, times kubectl", ratio, 1.0, True, "x")
    for rtt in (FAST, LONG):
        for name, text in [("connections256_errors", "256 workers"), ("sustained_errors", "256 workers, sustained")]:
            value = run.value(OUTBOUND, rtt, name)
            if value is not None or name != "sustained_errors":
                yield Verdict(f"errors with {text}, at {rtt} ms", value, 0, False, "")


def _commands(run: Run) -> Iterator[Verdict]:
    for rtt, limit in [(FAST, 1.5), (LONG, 2.0)]:
        yield Verdict(f"tpctl connect at {rtt} ms", run.value(OUTBOUND, rtt, "connect_s"), limit, False, "s")
    yield Verdict("tpctl --help", run.values.get("help_s"), 0.25, False, "s")
    for rtt in (FAST, LONG):
        value = run.value(INBOUND, rtt, "replace_extra_s")
        yield Verdict(f"tpctl replace beyond the pod's own replacement, at {rtt} ms", value, 1.5, False, "s")


def _footprint(run: Run) -> Iterator[Verdict]:
    for rtt in (FAST, LONG):
        for name, text, limit, unit in [
            ("worker_idle_cpu_percent", "worker idle, CPU", 0.5, "%"),
            ("worker_idle_mb", "worker idle, memory", 150.0, "MB"),
            ("worker_flows_mb", "worker, 1,000 open idle flows more", 20.0, "MB"),
        ]:
            yield Verdict(f"{text}, at {rtt} ms", run.value(OUTBOUND, rtt, name), limit, False, unit)
