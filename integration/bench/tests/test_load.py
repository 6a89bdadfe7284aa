"""The load generator against the workload, both as processes on the loopback address."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.bench import server
from integration.bench.load import dns

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, server.__file__, "0", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def load(port: int, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "integration.bench.load", "--host", "127.0.0.1", "--port", str(port)]
    done = subprocess.run(
        [*command, "--seconds", "0.2", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
        cwd=ROOT,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_bulk_arrives_whole_on_every_flow(port: int, direction: str) -> None:
    (result,) = load(port, "bulk", "--direction", direction, "--flows", "5")
    assert [flow["error"] for flow in result["flows"]] == [None] * 5
    assert min(flow["size"] for flow in result["flows"]) > 1_000_000
    assert min(flow["ended"] - flow["started"] for flow in result["flows"]) > 0


def test_pingpong(port: int) -> None:
    (result,) = load(port, "pingpong", "--size", "64")
    assert result["error"] is None
    assert result["samples"] > 10
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]


def test_connections(port: int) -> None:
    (result,) = load(port, "connections", "--workers", "8")
    assert result["errors"] == {}
    assert result["count"] > 8
    assert 0 < result["connect_p50_ms"] <= result["p50_ms"]


def test_refused_connections_are_errors() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    (result,) = load(closed, "connections", "--workers", "2")
    assert result["count"] == 0
    assert result["errors"]["ECONNREFUSED"] > 0


def test_idle_connections_are_held_until_told(port: int) -> None:
    assert load(port, "idle", "--flows", "20") == [{"open": 20}, {"asked": 20, "alive": 20}]


def test_a_changed_byte_is_noticed() -> None:
    for changed in (False, True):
        near, far = socket.socketpair()
        with near, far:
            data = bytearray(server.PATTERN[: server.FRAME])
            data[77777] ^= changed
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(data))
            far.sendall(server.LENGTH.pack(len(data)) + data + server.LENGTH.pack(0))
            assert server.take_frames(near) == (len(data), not changed)
            far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            assert server.take_pattern(near) == (len(data), not changed)


def test_the_workload_ends_a_connection_that_talks_nonsense(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"\x00\xff garbage\n")
        assert connection.recv(10) == b""


def test_dns_question_and_answer() -> None:
    asked = dns.question(258, "a.bc.")
    assert asked == b"\x01\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01"
    assert not dns.answered(asked)
    good = b"\x01\x02\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
    assert dns.answered(good)
    assert not dns.answered(good[:3] + b"\x83" + good[4:])
