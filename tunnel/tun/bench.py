"""How fast the stack is against this machine's kernel: `python -m tunnel.tun.bench`. Needs root.

The stack runs in this process, the client in another one in a network namespace of its own. Kernel loopback in the
same namespace is measured for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import uvloop

from tunnel.aio.stack_driver import StackDriver
from tunnel.stack import Stack
from tunnel.testing.namespace import Namespace
from tunnel.testing.services import ECHO, SINK, SOURCE, Services

_SERVER: Final = "10.99.1.1"
_CHUNK: Final = memoryview(bytes(1 << 18))


# The client side: plain sockets.


def _dial(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def upload(host: str, port: int, size: int) -> float:
    """MB/s into a sink, until it has acknowledged the end."""
    chunk = bytes(1 << 18)
    with _dial(host, port) as connection:
        start = time.perf_counter()
        for _ in range(size // len(chunk)):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
        return size / (time.perf_counter() - start) / 1e6


def download(host: str, port: int, size: int) -> float:
    """MB/s out of a source."""
    buffer = bytearray(1 << 18)
    with _dial(host, port) as connection:
        start = time.perf_counter()
        connection.sendall(str(size).encode())
        left = size
        while left:
            left -= connection.recv_into(buffer)
        return size / (time.perf_counter() - start) / 1e6


def ping_pong(host: str, port: int, rounds: int) -> tuple[float, float]:
    """Median and 99th percentile of a one-byte round trip, µs."""
    times = []
    with _dial(host, port) as connection:
        for _ in range(rounds):
            start = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    return times[rounds // 2], times[rounds * 99 // 100]


def connections(host: str, port: int, count: int, threads: int) -> float:
    """Connections per second, each with one byte each way and an orderly end."""

    def run() -> None:
        for _ in range(count // threads):
            with _dial(host, port) as connection:
                connection.sendall(b"x")
                connection.recv(1)

    runners = [threading.Thread(target=run) for _ in range(threads)]
    start = time.perf_counter()
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return count / (time.perf_counter() - start)


def _report(name: str, host: str, base: int, size: int) -> None:
    up = upload(host, base + SINK, size)
    down = download(host, base + SOURCE, size)
    p50, p99 = ping_pong(host, base + ECHO, 5000)
    rate = connections(host, base + ECHO, 4000, 4)
    print(  # noqa: T201 (a program's output)
        f"{name:10} up {up:6.0f} MB/s   down {down:6.0f} MB/s   ping-pong p50 {p50:5.1f} p99 {p99:6.1f} µs   "
        f"{rate:6.0f} connections/s",
        flush=True,
    )


# Loopback for comparison: the same services on kernel sockets.


def _serve(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    def one(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(connection)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def _sink(connection: socket.socket) -> None:
    buffer = bytearray(1 << 18)
    while connection.recv_into(buffer):
        pass


def _source(connection: socket.socket) -> None:
    left = int(connection.recv(64).decode())
    while left:
        left -= connection.send(_CHUNK[:left])


def _loopback_server() -> None:
    for port, serve in ((ECHO, _echo), (SINK, _sink), (SOURCE, _source)):
        listener = socket.create_server(("127.0.0.1", 30000 + port), backlog=512)
        threading.Thread(target=_serve, args=(listener, serve), daemon=True).start()
    threading.Event().wait()


async def _bench(size: int, mtu: int, loopback: bool) -> None:
    namespace = Namespace()
    device = namespace.tun(mtu=mtu)
    driver = StackDriver(device, Stack(Services(), random32=lambda: secrets.randbits(32)))
    driver.start()

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return namespace.run(lambda: subprocess.Popen([sys.executable, "-m", "tunnel.tun.bench", *arguments]))

    children = []
    try:
        if loopback:
            children.append(await asyncio.to_thread(start, "--role", "loopback"))
            await asyncio.sleep(0.5)
            children.append(await asyncio.to_thread(start, "--role", "client", "--loopback", "--size", str(size)))
            await asyncio.to_thread(children[-1].wait, 120)
        children.append(await asyncio.to_thread(start, "--role", "client", "--size", str(size)))
        await asyncio.to_thread(children[-1].wait, 120)
    finally:
        for child in children:
            child.kill()
            child.wait()
        driver.stop()
        device.close()
        namespace.close()


def main() -> None:
    """Parse arguments and run one of the roles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=("bench", "client", "loopback"), default="bench")
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes in each direction")
    parser.add_argument("--mtu", type=int, default=65535)
    parser.add_argument("--loopback", action="store_true", help="measure kernel loopback as well")
    arguments = parser.parse_args()
    if arguments.role == "loopback":
        _loopback_server()
    elif arguments.role == "client" and arguments.loopback:
        _report("loopback", "127.0.0.1", 30000, arguments.size)
    elif arguments.role == "client":
        _report("stack", _SERVER, 0, arguments.size)
    else:
        uvloop.run(_bench(arguments.size, arguments.mtu, arguments.loopback))


if __name__ == "__main__":
    main()
