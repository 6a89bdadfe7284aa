"""The figures tpctl must reach, each judged from one run. Ratios are within the run: machines differ. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from integration.bench.model import INBOUND, KUBECTL, OUTBOUND, Run

FAST, LONG = 0, 20
"""The two round-trip times, in ms, that the figures speak of."""


@dataclass(frozen=True)
class Source:
    """Where a value of a figure comes from."""

    path: str
    rtt_ms: int
    measurement: str
    """As for `--only`; empty: always made on that path."""


Asked = Callable[[Source], bool]
"""Whether a run was to make this measurement."""


@dataclass(frozen=True)
class Verdict:
    """One figure: what was asked, what was measured, whether it holds (None: not measured)."""

    text: str
    measured: float | None
    limit: float
    at_least: bool
    unit: str
    asked: bool
    """Whether the run was to measure all that it needs."""

    @property
    def holds(self) -> bool | None:
        """Whether the measured value is on the right side of the limit."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def missed(self) -> bool:
        """Whether it does not hold, or was to be measured and was not."""
        return self.asked if self.holds is None else not self.holds


def judge(run: Run, asked: Asked) -> list[Verdict]:
    """Every figure, in the order of the document."""
    parts = (_bulk, _latency, _latency_under_load, _connections, _commands, _footprint)
    return [verdict for part in parts for verdict in part(_Judge(run, asked))]


@dataclass(frozen=True)
class _Judge:
    run: Run
    asked: Asked

    def ratio(self, text: str, rtt: int, measurement: str, name: str, limit: float, *, at_least: bool) -> Verdict:
        """The laptop's way out, against kubectl's."""
        ours, theirs = self.run.value(OUTBOUND, rtt, name), self.run.value(KUBECTL, rtt, name)
        measured = None if ours is None or not theirs else round(ours / theirs, 2)
        asked = all(self.asked(Source(path, rtt, measurement)) for path in (OUTBOUND, KUBECTL))
        return Verdict(f"{text} at {rtt} ms, times kubectl", measured, limit, at_least, "x", asked)

    def value(
        self, text: str, rtt: int, measurement: str, name: str, limit: float, unit: str, *, path: str = OUTBOUND
    ) -> Verdict:
        """At most so much."""
        measured = self.run.value(path, rtt, name)
        return Verdict(text, measured, limit, False, unit, self.asked(Source(path, rtt, measurement)))


def _bulk(judge: _Judge) -> Iterator[Verdict]:
    for rtt, measurement, direction, limit in [
        (FAST, "bulk", "down", 1.3),
        (FAST, "bulk", "up", 1.1),
        (LONG, "bulk", "down", 4.0),
        (LONG, "bulk", "up", 4.0),
        (LONG, "flows8", "down", 2.5),
        (LONG, "flows8", "up", 2.5),
    ]:
        name = f"{measurement}_{direction}"
        yield judge.ratio(f"{measurement} {direction}", rtt, measurement, f"{name}_mbs", limit, at_least=True)
    for rtt in (FAST, LONG):
        asked = {count: judge.asked(Source(OUTBOUND, rtt, count)) for count in ("flows8", "flows64")}
        for name in ("flows8_down", "flows8_up", "flows64_down", "flows64_up"):
            slowest, fastest = (judge.run.value(OUTBOUND, rtt, f"{name}_{end}_mbs") for end in ("slowest", "fastest"))
            share = None if slowest is None or not fastest else round(slowest / fastest, 2)
            text = f"{name.replace('_', ' ')} at {rtt} ms, slowest flow / fastest"
            yield Verdict(text, share, 0.2, True, "x", asked[name.partition("_")[0]])


def _latency(judge: _Judge) -> Iterator[Verdict]:
    yield judge.ratio("ping-pong p50", FAST, "ping", "ping_p50_ms", 2.0, at_least=False)
    yield judge.ratio("new connection + GET p50", FAST, "get", "get_p50_ms", 1.2, at_least=False)
    yield judge.value("new connection + GET p50 at 20 ms", LONG, "get", "get_p50_ms", 2 * LONG + 3.0, "ms")


def _latency_under_load(judge: _Judge) -> Iterator[Verdict]:
    for direction in ("down", "up"):
        for rtt, which, limit in [(FAST, "p50", 5.0), (FAST, "p99", 25.0), (LONG, "p50", 35.0)]:
            text, name = f"ping-pong {which} beside a bulk flow {direction} at {rtt} ms", f"ping_under_{direction}"
            yield judge.value(text, rtt, "ping_under", f"{name}_{which}_ms", limit, "ms")


def _connections(judge: _Judge) -> Iterator[Verdict]:
    for rtt in (FAST, LONG):
        text = "new connections/s with 32 workers"
        yield judge.ratio(text, rtt, "connections32", "connections32_per_s", 1.0, at_least=True)
    for rtt in (FAST, LONG):
        for name, text in [("connections256", "256 workers"), ("sustained", "256 workers, sustained")]:
            yield judge.value(f"errors with {text}, at {rtt} ms", rtt, name, f"{name}_errors", 0, "")


def _commands(judge: _Judge) -> Iterator[Verdict]:
    for rtt, limit in [(FAST, 1.5), (LONG, 2.0)]:
        yield judge.value(f"tpctl connect at {rtt} ms", rtt, "", "connect_s", limit, "s")
    asked = any(judge.asked(Source(OUTBOUND, rtt, "")) for rtt in (FAST, LONG))
    yield Verdict("tpctl --help", judge.run.values.get("help_s"), 0.25, False, "s", asked)
    for rtt in (FAST, LONG):
        text = f"tpctl replace beyond the pod's own replacement, at {rtt} ms"
        yield judge.value(text, rtt, "", "replace_extra_s", 1.5, "s", path=INBOUND)


def _footprint(judge: _Judge) -> Iterator[Verdict]:
    for rtt in (FAST, LONG):
        for measurement, name, text, limit, unit in [
            ("idle", "worker_idle_cpu_percent", "worker idle, CPU", 0.5, "%"),
            ("idle", "worker_idle_mb", "worker idle, memory", 150.0, "MB"),
            ("memory", "worker_flows_mb", "worker, 1,000 open idle flows more", 20.0, "MB"),
        ]:
            yield judge.value(f"{text}, at {rtt} ms", rtt, measurement, name, limit, unit)
