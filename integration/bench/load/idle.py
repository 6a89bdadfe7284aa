"""Many open connections that do nothing, held until standard input ends."""

from __future__ import annotations

import json
import resource
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

LIMIT = 15.0
AT_ONCE = 32
"""Connections that are being opened at one time."""


def run(host: str, port: int, flows: int) -> dict[str, object]:
    """Open them (each proved by one echo), say so in a first line of JSON, hold them, prove each once more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(flows + 100, 1024)), most))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        held = [connection for connection in pool.map(lambda _: _open(host, port), range(flows)) if connection]
        print(json.dumps({"open": len(held)}), flush=True)  # noqa: T201 - whoever started us waits for it
        sys.stdin.read()
        alive = sum(pool.map(_alive, held))
    for connection in held:
        connection.close()
    return {"asked": flows, "alive": alive}


def _open(host: str, port: int) -> socket.socket | None:
    try:
        connection = socket.create_connection((host, port), timeout=LIMIT)
    except OSError:
        return None
    if _alive(connection, b"ECHO\nx"):
        return connection
    connection.close()
    return None


def _alive(connection: socket.socket, said: bytes = b"x") -> bool:
    try:
        connection.sendall(said)
        return connection.recv(1) == b"x"
    except OSError:
        return False
