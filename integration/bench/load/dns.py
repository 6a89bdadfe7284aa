"""DNS questions over UDP to the resolver the laptop uses, a fixed number of them outstanding."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from integration.bench.stats import latency

LIMIT = 3.0
"""Seconds after which a question without an answer counts as lost."""
HEADER = struct.Struct("!6H")
RECURSION_DESIRED = 0x0100
TYPE_A, CLASS_IN = 1, 1


def question(number: int, name: str) -> bytes:
    """RFC 1035 section 4.1: a question for the A records of `name`."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.rstrip(".").split("."))
    return HEADER.pack(number, RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", TYPE_A, CLASS_IN)


def answered(message: bytes) -> bool:
    """Whether this is an answer without error (RCODE 0) that holds at least one record."""
    _, flags, _, answers, _, _ = HEADER.unpack_from(message)
    return bool(flags & 0x8000) and flags & 0xF == 0 and answers > 0


def resolver() -> str:
    """The first name server of this namespace's /etc/resolv.conf."""
    for line in Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            return words[1]
    raise ValueError("/etc/resolv.conf names no server")


def run(server: str | None, name: str, outstanding: int, seconds: float) -> dict[str, object]:
    """Ask for `name` for `seconds` with `outstanding` questions under way."""
    address = server or resolver()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    samples: list[float] = []
    errors = 0
    asked: dict[int, float] = {}
    number = 0
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.connect((address, 53))
        connection.settimeout(0.5)
        started = time.monotonic()
        deadline = started + seconds
        while (now := time.monotonic()) < deadline or asked:
            while now < deadline and len(asked) < outstanding:
                number = (number + 1) % 65536
                asked[number] = time.monotonic()
                connection.send(question(number, name))
            try:
                message = connection.recv(4096)
            except TimeoutError:
                lost = [key for key, since in asked.items() if time.monotonic() - since > LIMIT]
                for key in lost:
                    del asked[key]
                errors += len(lost)
                continue
            since = asked.pop(int.from_bytes(message[:2], "big"), None)
            if since is not None:
                samples.append(time.monotonic() - since)
                errors += not answered(message)
        elapsed = time.monotonic() - started
    return {"per_second": round(len(samples) / elapsed, 1), "errors": errors, **latency(samples)}
