"""Sends what no program should to ports and sockets, many connections at once, and says which of them were ended.

Standard input: {"seconds", "targets": [[target, what], ...]}: for so long connections are held; a target is HOST:PORT
or the path of a socket; `what` speaks there: "mutual" (TLS that asks for a certificate), "tls" (gRPC or HTTP inside TLS
that does not), "http" or "daemon". Standard output: {"TARGET PATTERN": "ended" or "open"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator

SILENT, RESET = 40, 200
"""Connections that say nothing, and that are reset at once."""
LONGEST = 4 << 20
"""Bytes of the longest message that the daemon takes."""
LIMIT = 15.0
"""Seconds in which the other side must end what it must end."""


def _client_hello() -> bytes:
    """The first flight of a real handshake."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _frame(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The header of an HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack("!I", length)[1:] + bytes((kind, flags)) + struct.pack("!I", stream)


def _post(head: bytes, body: bytes = b"") -> bytes:
    return b"POST /inject HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"\r\n\r\n" + body


_HELLO = _client_hello()
_HALF_A_MESSAGE = struct.pack("!I", LONGEST) + bytes(LONGEST - 1)
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(0, 4, 0, 0)
"""How HTTP/2 begins (RFC 9113, 3.4)."""

ENDED: dict[str, dict[str, bytes]] = {
    "network": {
        "noise": os.urandom(65536),
        "zeros": bytes(1 << 20),
        "a huge record": b"\x16\x03\x01\xff\xff" + os.urandom(65535),
        "two hellos": _HELLO + _HELLO,
        "HTTP/2 without TLS": _HTTP2,
    },
    "http": {
        "an endless header": b"POST /inject HTTP/1.1\r\nX: " + b"x" * (1 << 20),
        "an endless path": b"GET /" + b"x" * (1 << 20),
        "a bad length": _post(b"Content-Length: -5"),
        "a bad chunk": _post(b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\n"),
        "no JSON": _post(b"Content-Length: 4", b"}{}{"),
        "deep JSON": _post(b"Content-Length: 100000", b"[" * 100000),
        "no review": _post(b"Content-Length: 14", b'{"request":[]}'),
        "a bare review": _post(b"Content-Length: 14", b'{"request":{}}'),
    },
    "daemon": {
        "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "noise": b"\xff" + os.urandom(65536),
        "a huge length": struct.pack("!I", 0xFFFFFFFF) + bytes(1 << 20),
        "a length too long by one": struct.pack("!I", LONGEST + 1) + b"x",
        "no message": struct.pack("!I", 5) + b"\xff" * 5,
        "an empty message": struct.pack("!I", 0),
        "a long message of nothing": struct.pack("!I", LONGEST) + bytes(LONGEST),
    },
}
"""What the other side must end at once, by what speaks there."""
HELD: dict[str, dict[str, bytes]] = {
    "network": {
        "half a hello": _HELLO[: len(_HELLO) // 2],
        "half a record": b"\x16\x03\x01\x40\x00x",
        **{f"silence {number}": b"" for number in range(SILENT)},
    },
    "http": {
        "half a body": _post(b"Content-Length: 8000000", bytes(7_900_000)),
        "a body without end": _post(b"Content-Length: 1000000000000"),
        "half a header": b"POST /inject HTTP/1.1\r\nHost: ",
    },
    "http2": {
        "a huge frame": _HTTP2 + _frame(0xFFFFFF, 0, 0, 1) + bytes(65536),
        "unknown frames": _HTTP2 + (_frame(8, 0xEE, 0xFF, 0) + bytes(8)) * 1000,
        "headers that are none": _HTTP2 + _frame(64, 1, 4, 1) + os.urandom(64),
        "data for no stream": _HTTP2 + _frame(1024, 0, 0, 7) + bytes(1024),
        "endless headers": _HTTP2 + _frame(1024, 1, 0, 1) + bytes(1024) + (_frame(1024, 9, 0, 1) + bytes(1024)) * 500,
    },
    "daemon": {
        **{f"half a message {number}": _HALF_A_MESSAGE for number in range(2 * SILENT)},
        **{f"silence {number}": b"" for number in range(2 * SILENT)},
    },
}
"""What it may wait for, for a while, or pass over."""


@contextlib.asynccontextmanager
async def connected(target: str, tls: bool) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, reset at the end."""
    if target.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(target)
    else:
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2", "http/1.1"])
        host, _, port = target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def send(target: str, tls: bool, data: bytes, deadline: float) -> str:
    """Send and read until the other side ends it, or until the deadline."""
    try:
        async with asyncio.timeout_at(deadline), connected(target, tls) as (reader, writer):
            writer.write(data)
            while await reader.read(65536):
                pass
    except TimeoutError:
        return "open"
    except (OSError, ssl.SSLError):
        pass
    return "ended"


async def byte_by_byte(target: str, data: bytes, deadline: float) -> str:
    """The same, slowly: it is not the number of writes that counts for a deadline."""
    try:
        async with asyncio.timeout_at(deadline), connected(target, False) as (reader, writer):
            for start in range(len(data)):
                writer.write(data[start : start + 1])
                with contextlib.suppress(TimeoutError):
                    if not await asyncio.wait_for(reader.read(65536), 0.1):
                        break
    except TimeoutError:
        return "open"
    except (OSError, ssl.SSLError):
        pass
    return "ended"


async def reset(target: str) -> None:
    """Connect and reset, many times."""
    loop = asyncio.get_running_loop()
    host, _, port = target.rpartition(":")
    for _ in range(RESET):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await loop.sock_connect(sock, (host, int(port)))
            await loop.sock_sendall(sock, _HELLO[:20])


def patterns(what: str) -> list[tuple[str, bool]]:
    """(which of the patterns above, inside TLS) for what speaks there."""
    return {
        "mutual": [("network", False)],
        "tls": [("network", False), ("http", True), ("http2", True)],
        "http": [("network", False), ("http", False)],
        "daemon": [("daemon", False)],
    }[what]


async def attack(target: str, what: str, seconds: float) -> dict[str, str]:
    """First what must be ended, then what may be held: a place that waits must not keep the others from theirs."""
    if what != "daemon":
        await reset(target)
    slow = _HALF_A_MESSAGE if what == "daemon" else _HELLO
    jobs: dict[str, asyncio.Task[str]] = {}
    async with asyncio.TaskGroup() as group:
        for which, tls in patterns(what):
            for name, data in ENDED.get(which, {}).items():
                jobs[name] = group.create_task(send(target, tls, data, _in(LIMIT)))
    async with asyncio.TaskGroup() as group:
        for which, tls in patterns(what):
            for name, data in HELD[which].items():
                jobs[name] = group.create_task(send(target, tls, data, _in(seconds)))
        jobs["byte by byte"] = group.create_task(byte_by_byte(target, slow, _in(seconds)))
    return {f"{target} {name}": job.result() for name, job in jobs.items()}


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def main() -> None:
    wanted = json.load(sys.stdin)
    attacks = (attack(target, what, wanted["seconds"]) for target, what in wanted["targets"])
    outcomes: dict[str, str] = {}
    for outcome in await asyncio.gather(*attacks):
        outcomes |= outcome
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
