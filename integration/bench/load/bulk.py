"""Bulk transfer in one direction over one or many flows at once.

Bytes count when they have arrived: downloads are counted where they are read, uploads by the far sink, whose answer
also says that every byte was right. The clock stops at that answer, so whatever lay in buffers has been carried.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import asdict, dataclass

from integration.bench.server import READY, prepare_bulk, send_frames, take_pattern

CONNECT_LIMIT = 15.0


@dataclass
class FlowResult:
    """What one flow carried."""

    size: int = 0
    """Bytes that arrived."""
    started: float = 0.0
    ended: float = 0.0
    error: str | None = None


def download(host: str, port: int, seconds: float) -> FlowResult:
    """Let the server send for `seconds`; take all of it."""
    with _open(host, port, b"SOURCE %f\n" % seconds) as connection:
        started = time.monotonic()
        size, intact = take_pattern(connection)
        return FlowResult(size, started, time.monotonic(), None if intact else "bytes differ")


def upload(host: str, port: int, seconds: float) -> FlowResult:
    """Send for `seconds`; wait for the sink's word."""
    with _open(host, port, b"SINK\n") as connection:
        started = time.monotonic()
        sent = send_frames(connection, seconds)
        size, intact = map(int, _line(connection).split())
        wrong = "bytes differ" if not intact else f"sent {sent}, arrived {size}" if sent != size else None
        return FlowResult(size, started, time.monotonic(), wrong)


def _open(host: str, port: int, command: bytes) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=CONNECT_LIMIT)
    connection.sendall(command)
    prepare_bulk(connection)
    if connection.recv(len(READY), socket.MSG_WAITALL) != READY:
        raise ConnectionError("the server did not begin")
    return connection


def _line(connection: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(100)
        if not part:
            raise ConnectionError("the sink ended without an answer")
        answer += part
    return answer


def run(host: str, port: int, direction: str, flows: int, seconds: float) -> dict[str, object]:
    """All flows at once, a thread each (they sleep in system calls)."""
    transfer = {"down": download, "up": upload}[direction]
    results = [FlowResult() for _ in range(flows)]

    def one(index: int) -> None:
        try:
            results[index] = transfer(host, port, seconds)
        except OSError as error:
            results[index].error = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=one, args=(index,)) for index in range(flows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds_asked": seconds, "flows": [asdict(result) for result in results]}
