"""What a run of the benchmark holds: plain numbers under fixed names, per path and round-trip time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NODE, KUBECTL, OUTBOUND, INBOUND = "node", "kubectl", "tpctl-outbound", "tpctl-inbound"
PATHS = (NODE, KUBECTL, OUTBOUND, INBOUND)

Values = dict[str, float]
"""Measured numbers by name, e.g. `bulk_down_mbs`. The unit is the end of the name."""


@dataclass
class Cell:
    """Everything measured on one path at one round-trip time."""

    path: str
    rtt_ms: int
    values: Values = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """One sentence for each thing that went wrong; what it touches has no value, and tpctl's own fail the run."""
    raw: dict[str, Any] = field(default_factory=dict)
    """The load generator's own answers by measurement."""
    load_average: tuple[float, float] = (0.0, 0.0)
    """The machine's one-minute load average before and after: other work on the machine shows here."""


@dataclass
class Run:
    """One run: its cells in the order they were measured, and what belongs to no path."""

    started: str
    machine: dict[str, Any] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    values: Values = field(default_factory=dict)

    def value(self, path: str, rtt_ms: int, name: str) -> float | None:
        """A number by name, or None when it was not measured."""
        for cell in self.cells:
            if cell.path == path and cell.rtt_ms == rtt_ms:
                return cell.values.get(name)
        return None

    def rtts(self) -> list[int]:
        """The round-trip times measured, ascending."""
        return sorted({cell.rtt_ms for cell in self.cells})

    def columns(self) -> Iterator[tuple[str, int]]:
        """(path, rtt) of every cell, by round-trip time and then in the order of `PATHS`."""
        present = {(cell.path, cell.rtt_ms) for cell in self.cells}
        for rtt in self.rtts():
            for path in PATHS:
                if (path, rtt) in present:
                    yield path, rtt


def bulk_values(prefix: str, raw: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """Rates of a bulk measurement in MB/s (10^6): all flows together, and the slowest and fastest flow.

    None where a flow failed, or its bytes were wrong: what the others reached then says nothing.
    """
    flows: list[dict[str, Any]] = raw["flows"]
    errors = Counter(flow["error"] for flow in flows if flow["error"])
    problems = [f"{prefix}: {count} of {len(flows)} flows: {error}" for error, count in errors.items()]
    if problems:
        return {}, problems
    whole = max(flow["ended"] for flow in flows) - min(flow["started"] for flow in flows)
    values = {f"{prefix}_mbs": round(sum(flow["size"] for flow in flows) / whole / 1e6, 1)}
    if len(flows) > 1:
        rates = [flow["size"] / (flow["ended"] - flow["started"]) / 1e6 for flow in flows]
        values[f"{prefix}_slowest_mbs"] = round(min(rates), 2)
        values[f"{prefix}_fastest_mbs"] = round(max(rates), 2)
    return values, problems
