"""`python -m integration.bench`: measure, print the table, keep table and numbers.

Status 1 when a figure is missed, or was to be measured and was not, or something of tpctl went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from integration.bench.developer import CommandFailed, Developer
from integration.bench.figures import Source, judge
from integration.bench.measure import Plan
from integration.bench.model import INBOUND, KUBECTL, NODE, OUTBOUND, PATHS, Run
from integration.bench.paths import Bench
from integration.bench.table import failed, render
from integration.bench.workload import Workload
from integration.cluster import images
from integration.cluster.cluster import Cluster
from integration.cluster.commands import say
from integration.cluster.errors import ClusterError
from integration.cluster.places import DEFAULT_NAME

FULL = Plan(seconds=4.0, idle_seconds=12.0, sustain=90.0)
QUICK = Plan(seconds=0.6, idle_seconds=3.0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m integration.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short measurements: under 3 minutes in all")
    parser.add_argument("--rtt", default="0,20", help="round-trip times to the API server, in ms")
    parser.add_argument("--paths", default=",".join(PATHS), help="which paths (default: all)")
    parser.add_argument("--only", default="", metavar="NAME,...", help="idle, ping, get, bulk, flows8, flows64, "
                        "ping_under, connections32, connections256, dns, memory, sustained")  # fmt: skip
    parser.add_argument("--sustain", type=float, metavar="SECONDS", help="of new connections with 256 workers "
                        f"(default: {FULL.sustain:g}; --quick: 0, none)")  # fmt: skip
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="where table and numbers go")
    parser.add_argument("--keep", action="store_true", help="leave the workload in the cluster for the next run")
    parser.add_argument("--name", default=DEFAULT_NAME, help="which local cluster; started when it does not run")
    return parser


def main() -> int:
    """Run the benchmark."""
    options = _parser().parse_args()
    base = QUICK if options.quick else FULL
    only = frozenset(word for word in options.only.split(",") if word)
    sustain = base.sustain if options.sustain is None else options.sustain
    plan = Plan(options.seconds or base.seconds, base.idle_seconds, sustain, only)
    paths = options.paths.split(",")
    if unknown := set(paths) - set(PATHS):
        say(f"There is no path called {', '.join(sorted(unknown))}; there are {', '.join(PATHS)}.")
        return 1
    rtts = [int(rtt) for rtt in options.rtt.split(",")]
    try:
        run = _run(options.name, rtts, paths, plan, options.keep)
    except (ClusterError, CommandFailed) as error:
        say(str(error))
        return 1

    def asked(source: Source) -> bool:
        made = not source.measurement or plan.asks(source.measurement)
        return made and source.path in paths and source.rtt_ms in rtts

    verdicts = judge(run, asked)
    text = render(run, verdicts)
    options.out.mkdir(parents=True, exist_ok=True)
    name = run.started.replace(":", "").replace(" ", "-")
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    document = {**asdict(run), "figures": [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts]}
    (options.out / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    sys.stdout.write(text)
    say(f"Kept as {options.out / name}.md and .json")
    return 1 if failed(run, verdicts) else 0


def _run(name: str, rtts: list[int], paths: list[str], plan: Plan, keep: bool) -> Run:
    started = time.monotonic()
    cluster = Cluster.up(name)
    cluster.load([images.RECIPES[image]() for image in ("test", "manager", "agent")])
    run = Run(time.strftime("%Y-%m-%d %H:%M:%S"), {"cores": os.cpu_count(), "kernel": platform.release()})
    workload = Workload(cluster)
    bench = Bench(cluster, workload, run, plan, say)
    try:
        if NODE in paths:
            bench.node()
        for rtt in rtts:
            with Developer(cluster, rtt) as developer:
                _laptop(bench, developer, rtt, paths)
    finally:
        if not keep:
            workload.remove()
    run.machine["seconds"] = round(time.monotonic() - started)
    return run


def _laptop(bench: Bench, developer: Developer, rtt: int, paths: list[str]) -> None:
    if KUBECTL in paths:
        bench.kubectl(developer, rtt)
    if not {OUTBOUND, INBOUND} & set(paths):
        return
    if "help_s" not in bench.run.values:
        bench.run.values["help_s"] = round(min(developer.tpctl("--help") for _ in range(3)), 3)
        developer.install()
    developer.tpctl("daemon", "start", user="root")
    if OUTBOUND in paths:
        bench.outbound(developer, rtt)
    else:
        developer.connect()
    if INBOUND in paths:
        bench.inbound(developer, rtt)


if __name__ == "__main__":
    sys.exit(main())
