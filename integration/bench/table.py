"""A run as text: the numbers by path, the ratios, the verdicts. Markdown that also reads well on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from integration.bench.figures import Verdict
from integration.bench.model import INBOUND, KUBECTL, NODE, Run

ROWS = (
    ("bulk down MB/s", "bulk_down_mbs"),
    ("bulk up MB/s", "bulk_up_mbs"),
    ("8 flows down MB/s", "flows8_down_mbs"),
    ("- slowest flow", "flows8_down_slowest_mbs"),
    ("- fastest flow", "flows8_down_fastest_mbs"),
    ("8 flows up MB/s", "flows8_up_mbs"),
    ("- slowest flow", "flows8_up_slowest_mbs"),
    ("- fastest flow", "flows8_up_fastest_mbs"),
    ("64 flows down MB/s", "flows64_down_mbs"),
    ("- slowest flow", "flows64_down_slowest_mbs"),
    ("- fastest flow", "flows64_down_fastest_mbs"),
    ("64 flows up MB/s", "flows64_up_mbs"),
    ("- slowest flow", "flows64_up_slowest_mbs"),
    ("- fastest flow", "flows64_up_fastest_mbs"),
    ("ping-pong p50 ms", "ping_p50_ms"),
    ("ping-pong p99 ms", "ping_p99_ms"),
    ("beside bulk down: p50 ms", "ping_under_down_p50_ms"),
    ("beside bulk down: p99 ms", "ping_under_down_p99_ms"),
    ("beside bulk down: that flow MB/s", "ping_under_down_bulk_mbs"),
    ("beside bulk up: p50 ms", "ping_under_up_p50_ms"),
    ("beside bulk up: p99 ms", "ping_under_up_p99_ms"),
    ("beside bulk up: that flow MB/s", "ping_under_up_bulk_mbs"),
    ("connection + GET p50 ms", "get_p50_ms"),
    ("connection + GET p99 ms", "get_p99_ms"),
    ("connect alone p50 ms", "get_connect_p50_ms"),
    ("connections/s, 32 workers", "connections32_per_s"),
    ("- errors", "connections32_errors"),
    ("connections/s, 256 workers", "connections256_per_s"),
    ("- errors", "connections256_errors"),
    ("connections/s, 256 workers, sustained", "sustained_per_s"),
    ("- errors", "sustained_errors"),
    ("DNS lookups/s, one at a time", "dns1_per_s"),
    ("DNS lookups/s, 32 under way", "dns32_per_s"),
    ("- errors", "dns32_errors"),
    ("DNS lookup p50 ms", "dns1_p50_ms"),
    ("connect s", "connect_s"),
    ("the pod's own replacement s", "pod_replacement_s"),
    ("replace s", "replace_s"),
    ("leave s", "leave_s"),
)


def render(run: Run, verdicts: Sequence[Verdict]) -> str:
    """The whole report."""
    machine = ", ".join(f"{key} {value}" for key, value in run.machine.items())
    parts = [f"# Benchmark {run.started}", machine, _numbers(run), _processes(run), _verdicts(verdicts), _problems(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def failed(run: Run, verdicts: Sequence[Verdict]) -> int:
    """How many figures are missed (or were to be measured and were not), and problems of tpctl there were.

    Those of kubectl are its own: what cannot be compared with it for them is a figure that was not measured.
    """
    problems = sum(len(cell.problems) for cell in run.cells if cell.path != KUBECTL)
    return problems + sum(verdict.missed for verdict in verdicts)


def _numbers(run: Run) -> str:
    """All paths side by side; a number in brackets is the ratio to kubectl at the same round-trip time."""
    columns = list(run.columns())
    heads = ["", *(path if path == NODE else f"{path}, {rtt} ms" for path, rtt in columns)]
    rows = []
    for label, name in ROWS:
        cells = [_cell(run, path, rtt, name) for path, rtt in columns]
        if any(cells):
            rows.append([label, *cells])
    averages = [next(c.load_average for c in run.cells if (c.path, c.rtt_ms) == column) for column in columns]
    rows.append(["load average before, after", *(f"{before:.1f}, {after:.1f}" for before, after in averages)])
    note = "In brackets: times kubectl's at the same round-trip time; inbound is set against the direction of the line."
    return _grid(heads, rows) + "\n\n" + note


def _cell(run: Run, path: str, rtt: int, name: str) -> str:
    value = run.value(path, rtt, name)
    if value is None:
        return ""
    compared = _opposite(name) if path == INBOUND else name
    other = run.value(KUBECTL, rtt, compared) if path not in (KUBECTL, NODE) else None
    return f"{value:g}" + (f" ({value / other:.1f})" if other and not name.endswith("_errors") else "")


def _opposite(name: str) -> str:
    """Inbound, the client is in the cluster: its download travels up the laptop's line."""
    swap = {"down": "up", "up": "down"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


def _processes(run: Run) -> str:
    """CPU and memory by process."""
    rows = []
    for path, rtt in run.columns():
        cells = [cell for cell in run.cells if (cell.path, cell.rtt_ms) == (path, rtt)]
        names = sorted({key.split(":")[1] for cell in cells for key in cell.values if ":" in key})
        for name in names:
            kinds = ("cpu_down_s_per_gb", "cpu_up_s_per_gb", "idle_mb", "flows_mb", "idle_cpu_percent")
            numbers = [run.value(path, rtt, f"{kind}:{name}") for kind in kinds]
            rows.append([f"{path}, {rtt} ms", name, *("" if number is None else f"{number:g}" for number in numbers)])
    if not rows:
        return ""
    heads = ["path", "process", "CPU s/GB down", "CPU s/GB up", "idle MB", "1,000 flows MB more", "idle CPU %"]
    return _grid(heads, rows)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    words = {True: "pass", False: "FAIL", None: "not measured"}  # in capitals where it was to be
    rows = []
    for verdict in verdicts:
        sign = ">=" if verdict.at_least else "<="
        measured = "" if verdict.measured is None else f"{verdict.measured:g} {verdict.unit}".rstrip()
        word = words[verdict.holds].upper() if verdict.missed else words[verdict.holds]
        rows.append([verdict.text, measured, f"{sign} {verdict.limit:g} {verdict.unit}".rstrip(), word])
    return _grid(["figure", "measured", "asked", ""], rows)


def _problems(run: Run) -> str:
    lines = [f"- {cell.path}, {cell.rtt_ms} ms: {problem}" for cell in run.cells for problem in cell.problems]
    return "Problems:\n" + "\n".join(lines) if lines else ""


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with aligned columns."""
    widths = [max(len(row[index]) for row in (heads, *rows)) for index in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(heads), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])
