"""Small messages back and forth on one open connection."""

from __future__ import annotations

import socket
import time

from integration.bench.stats import latency

LIMIT = 10.0


def run(host: str, port: int, seconds: float, size: int) -> dict[str, object]:
    """Ping-pong of `size` bytes for `seconds`."""
    samples = []
    error = None
    message = bytes(size)
    with socket.create_connection((host, port), timeout=LIMIT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"ECHO\n")
        deadline = time.monotonic() + seconds
        try:
            while (started := time.monotonic()) < deadline:
                connection.sendall(message)
                missing = size
                while missing:
                    part = len(connection.recv(missing))
                    if not part:
                        raise ConnectionError("the server ended the connection")
                    missing -= part
                samples.append(time.monotonic() - started)
        except OSError as problem:
            error = f"{type(problem).__name__}: {problem}"
    # the first exchange also carries the opening
    return {**latency(samples[1:]), "error": error}
