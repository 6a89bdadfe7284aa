"""Many open connections that do nothing, held until standard input ends."""

from __future__ import annotations

import json
import resource
import socket
import sys

LIMIT = 15.0


def run(host: str, port: int, flows: int) -> dict[str, object]:
    """Open them (each proved by one echo), say so in a first line of JSON, hold them, prove each once more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(flows + 100, 1024)), most))
    held = []
    for _ in range(flows):
        connection = socket.create_connection((host, port), timeout=LIMIT)
        connection.sendall(b"ECHO\n")
        held.append(connection)
    alive = sum(_alive(connection) for connection in held)
    print(json.dumps({"open": alive}), flush=True)  # noqa: T201 - whoever started us waits for it
    sys.stdin.read()
    alive = sum(_alive(connection) for connection in held)
    for connection in held:
        connection.close()
    return {"asked": flows, "alive": alive}


def _alive(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b"x"
    except OSError:
        return False
