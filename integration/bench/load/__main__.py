"""Command line of the load generator."""

from __future__ import annotations

import argparse
import json

from integration.bench.load import bulk, dns, idle, pingpong
from integration.bench.load.connections import Workers


def main() -> None:
    """Run one kind of load and print the result."""
    parser = argparse.ArgumentParser(prog="python -m integration.bench.load")
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--seconds", type=float, default=3.0)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kind = kinds.add_parser("bulk")
    kind.add_argument("--direction", choices=["down", "up"], required=True)
    kind.add_argument("--flows", type=int, default=1)
    kind = kinds.add_parser("pingpong")
    kind.add_argument("--size", type=int, default=64)
    kind = kinds.add_parser("connections")
    kind.add_argument("--workers", type=int, default=1)
    kind = kinds.add_parser("idle")
    kind.add_argument("--flows", type=int, default=1000)
    kind = kinds.add_parser("dns")
    kind.add_argument("--name", required=True)
    kind.add_argument("--outstanding", type=int, default=1)
    a = parser.parse_args()
    result: dict[str, object]
    match a.kind:
        case "bulk":
            result = bulk.run(a.host, a.port, a.direction, a.flows, a.seconds)
        case "pingpong":
            result = pingpong.run(a.host, a.port, a.seconds, a.size)
        case "connections":
            result = Workers(a.host, a.port, a.workers).run(a.seconds)
        case "idle":
            result = idle.run(a.host, a.port, a.flows)
        case _:
            result = dns.run(a.host or None, a.name, a.outstanding, a.seconds)
    print(json.dumps(result), flush=True)  # noqa: T201 - the result


if __name__ == "__main__":
    main()
