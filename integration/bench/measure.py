"""Everything that is measured on one path, whatever path it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from integration.bench import processes
from integration.bench.model import Cell, Values, bulk_values

GRACE = 75.0
"""Seconds a load generator may need beyond its measuring time before it counts as hung."""
BULK_HEAD_START = 0.6
IDLE_FLOWS = 1000
SETTLE = 0.3
"""Seconds between measurements, for connections to end."""


@dataclass(frozen=True)
class Plan:
    """How long to measure."""

    seconds: float
    """Each rate and latency."""
    idle_seconds: float
    """CPU of idle processes."""
    sustain: float = 0.0
    """New connections with 256 workers for that long; 0: left out."""
    only: frozenset[str] = frozenset()
    """Names of measurements; empty: all."""

    def asks(self, measurement: str) -> bool:
        """Whether this one is to be made."""
        return (not self.only or measurement in self.only) and (measurement != "sustained" or self.sustain > 0)


@dataclass(frozen=True)
class Path:
    """A way to the workload."""

    name: str
    host: str
    port: int
    spawn: Callable[[Sequence[str]], subprocess.Popen[str]]
    """Starts a command where the path begins, standard input and output piped."""
    named: Callable[[], dict[str, list[int]]]
    """The processes that carry this path, by name."""
    dns_server: str | None = None
    """None: what resolv.conf says there."""
    dns_name: str | None = None
    """None: the path carries no DNS."""
    leave_out: frozenset[str] = frozenset()
    """Measurements that make no sense here."""


class Load:
    """One run of the load generator."""

    def __init__(self, path: Path, *arguments: str, seconds: float = 0.0) -> None:
        target = ["--host", path.host, "--port", str(path.port), "--seconds", str(seconds)]
        command = [sys.executable, "-m", "integration.bench.load", *target, *arguments]
        self._name = " ".join(arguments)
        self._limit = seconds + GRACE
        self._process = path.spawn(command)

    def line(self) -> dict[str, Any]:
        """One line of its output."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            raise ChildProcessError(f"load {self._name}: no answer: {self._rest()[1][-500:]}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def result(self) -> dict[str, Any]:
        """End its input and wait for its (last) line."""
        out, err = self._rest()
        if self._process.returncode or not out.strip():
            raise ChildProcessError(f"load {self._name}: {(err.strip().splitlines() or ['no output'])[-1]}")
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def _rest(self) -> tuple[str, str]:
        try:
            return self._process.communicate(timeout=self._limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            return out, err + f"\nhung: killed after {self._limit:.0f} s"


class Measuring:
    """Fills one cell. Each public method is a measurement; its name is what `--only` takes."""

    def __init__(self, path: Path, cell: Cell, plan: Plan, say: Callable[[str], None]) -> None:
        self._path, self._cell, self._plan, self._say = path, cell, plan, say

    def run(self) -> None:
        """All measurements of the plan, each on its own: one that fails leaves a problem behind, not an end."""
        before = os.getloadavg()[0]
        for name, measurement in self._measurements():
            if name in self._path.leave_out or not self._plan.asks(name):
                continue
            started = time.monotonic()
            try:
                measurement()
            except (ChildProcessError, OSError, ValueError, KeyError) as error:
                self._cell.problems.append(f"{name}: {error}")
            self._say(f"{self._cell.path} {self._cell.rtt_ms} ms: {name} ({time.monotonic() - started:.1f} s)")
            time.sleep(SETTLE)
        self._cell.load_average = (before, os.getloadavg()[0])

    def _measurements(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("idle", self.idle),
            ("memory", self.memory),
            ("ping", self.ping),
            ("get", lambda: self.connections("get", 1)),
            ("bulk", self.bulk),
            ("flows8", lambda: self.flows(8)),
            ("flows64", lambda: self.flows(64)),
            ("ping_under", self.ping_under),
            ("connections32", lambda: self.connections("connections32", 32)),
            ("connections256", lambda: self.connections("connections256", 256)),
            ("dns", self.dns),
            ("sustained", self.sustained),
        ]

    def bulk(self) -> None:
        """One flow each way, and what it costs in CPU."""
        for direction in ("down", "up"):
            sample = processes.Sample(self._path.named())
            raw = self._load(f"bulk_{direction}", "bulk", "--direction", direction)
            carried = sum(flow["size"] for flow in raw["flows"]) / 1e9
            if self._take_bulk(f"bulk_{direction}", raw) and carried:
                for name, used in sample.used().items():
                    self._cell.values[f"cpu_{direction}_s_per_gb:{name}"] = round(used / carried, 1)

    def flows(self, count: int) -> None:
        """Many bulk flows at once."""
        for direction in ("down", "up"):
            name = f"flows{count}_{direction}"
            self._take_bulk(name, self._load(name, "bulk", "--direction", direction, "--flows", str(count)))

    def ping(self) -> None:
        """Ping-pong alone."""
        self._take_latency("ping", self._load("ping", "pingpong"))

    def ping_under(self) -> None:
        """Ping-pong beside a bulk flow."""
        for direction in ("down", "up"):
            name = f"ping_under_{direction}"
            seconds = self._plan.seconds
            beside = Load(self._path, "bulk", "--direction", direction, seconds=seconds + BULK_HEAD_START + 0.5)
            time.sleep(BULK_HEAD_START)
            self._take_latency(name, self._load(name, "pingpong"))
            self._take_bulk(f"{name}_bulk", beside.result())

    def connections(self, name: str, workers: int) -> None:
        """New connections."""
        self._take_connections(name, self._load(name, "connections", "--workers", str(workers)))

    def sustained(self) -> None:
        """New connections for so long that TIME_WAIT gathers wherever the tunnel dials."""
        load = Load(self._path, "connections", "--workers", "256", seconds=self._plan.sustain)
        self._take_connections("sustained", load.result())

    def dns(self) -> None:
        """Questions for one cluster name."""
        if self._path.dns_name is None:
            return
        for outstanding in (1, 32):
            name = f"dns{outstanding}"
            arguments = ("dns", "--name", self._path.dns_name, "--outstanding", str(outstanding))
            server = Path(self._path.name, self._path.dns_server or "", 53, self._path.spawn, self._path.named)
            raw = Load(server, *arguments, seconds=self._plan.seconds).result()
            self._cell.raw[name] = raw
            self._values(name, raw, "per_second", "per_s")
            self._values(name, raw, "errors", "errors")
            if raw["errors"]:
                self._cell.problems.append(f"{name}: {raw['errors']} questions without a good answer")
            self._values(name, raw, "p50_ms", "p50_ms")

    def idle(self) -> None:
        """CPU and memory of every process while nothing happens."""
        named = self._path.named()
        if not named:
            return
        time.sleep(1.0)
        sample = processes.Sample(named)
        started = time.monotonic()
        time.sleep(self._plan.idle_seconds)
        elapsed = time.monotonic() - started
        for name, used in sample.used().items():
            self._cell.values[f"idle_cpu_percent:{name}"] = round(100 * used / elapsed, 2)
        for name, size in processes.memory_mb(named).items():
            self._cell.values[f"idle_mb:{name}"] = round(size, 1)
        self._worker("worker_idle_cpu_percent", "idle_cpu_percent")
        self._worker("worker_idle_mb", "idle_mb")

    def memory(self) -> None:
        """How much every process grows with a thousand open, idle flows."""
        named = self._path.named()
        if not named:
            return
        before = processes.memory_mb(named)
        load = Load(self._path, "idle", "--flows", str(IDLE_FLOWS), seconds=30)
        opened = load.line()["open"]
        time.sleep(0.5)
        after = processes.memory_mb(named)
        alive = load.result()["alive"]
        if opened != IDLE_FLOWS or alive != IDLE_FLOWS:
            self._cell.problems.append(f"memory: {opened} of {IDLE_FLOWS} idle flows opened, {alive} lived")
            return
        for name, size in after.items():
            self._cell.values[f"flows_mb:{name}"] = round(size - before[name], 1)
        self._worker("worker_flows_mb", "flows_mb")

    def _load(self, name: str, *arguments: str) -> dict[str, Any]:
        raw = Load(self._path, *arguments, seconds=self._plan.seconds).result()
        self._cell.raw[name] = raw
        return raw

    def _take_bulk(self, prefix: str, raw: dict[str, Any]) -> bool:
        """Whether all of it counts."""
        values, problems = bulk_values(prefix, raw)
        self._cell.values.update(values)
        self._cell.problems += problems
        return bool(values)

    def _take_latency(self, name: str, raw: dict[str, Any]) -> None:
        if raw["error"]:
            self._cell.problems.append(f"{name}: {raw['error']}")
            return
        self._values(name, raw, "p50_ms", "p50_ms")
        self._values(name, raw, "p99_ms", "p99_ms")

    def _take_connections(self, name: str, raw: dict[str, Any]) -> None:
        self._cell.raw[name] = raw
        for theirs, ours in [("per_second", "per_s"), ("p50_ms", "p50_ms"), ("p99_ms", "p99_ms")]:
            self._values(name, raw, theirs, ours)
        self._values(name, raw, "connect_p50_ms", "connect_p50_ms")
        self._cell.values[f"{name}_errors"] = sum(raw["errors"].values())
        if raw["errors"]:
            self._cell.problems.append(f"{name}: {raw['errors']}")

    def _values(self, name: str, raw: dict[str, Any], theirs: str, ours: str) -> None:
        if raw[theirs] is not None:
            self._cell.values[f"{name}_{ours}"] = raw[theirs]

    def _worker(self, name: str, kind: str) -> None:
        values: Values = self._cell.values
        if (value := values.get(f"{kind}:worker")) is not None:
            values[name] = value
