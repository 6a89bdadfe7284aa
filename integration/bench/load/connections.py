"""New connections: connect, one GET, its whole answer, close. Many at once, each started when one ends.

The client closes first, as clients that know the length of the answer do: its TIME_WAIT, and that of whoever dials for
it, are part of what is measured.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import Counter

from integration.bench.server import ANSWER
from integration.bench.stats import latency

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
LIMIT = 15.0
"""Seconds after which a connection without an answer counts as failed."""


class _Connection:
    """One connection's way from connect to close."""

    __slots__ = ("answer", "connected", "socket", "started")

    def __init__(self, family: socket.AddressFamily, now: float) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.started = now
        self.connected: float | None = None
        self.answer = b""


class Workers:
    """Keeps `workers` connections under way until the time is over."""

    def __init__(self, host: str, port: int, workers: int) -> None:
        self._target = (host, port)
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._workers = workers
        self._epoll = select.epoll()
        self._under_way: dict[int, _Connection] = {}
        self._whole: list[float] = []
        self._connects: list[float] = []
        self.errors: Counter[str] = Counter()

    def run(self, seconds: float) -> dict[str, object]:
        """Measure for `seconds`; connections then still under way are waited for."""
        started = time.monotonic()
        deadline = started + seconds
        check = started + 1.0
        while True:
            now = time.monotonic()
            while now < deadline and len(self._under_way) < self._workers:
                self._start(now)
                now = time.monotonic()  # a connection may fail at once
            if not self._under_way:
                break
            for descriptor, _ in self._epoll.poll(0.5):
                self._ready(self._under_way[descriptor])
            if now > check:
                check = now + 1.0
                for late in [one for one in self._under_way.values() if now - one.started > LIMIT]:
                    self._end(late, "TIMEOUT")
        elapsed = time.monotonic() - started
        return {
            "count": len(self._whole),
            "per_second": round(len(self._whole) / elapsed, 1),
            "seconds": round(elapsed, 3),
            "errors": dict(self.errors),
            **latency(self._whole),
            "connect_p50_ms": latency(self._connects)["p50_ms"],
        }

    def _start(self, now: float) -> None:
        one = _Connection(self._family, now)
        self._under_way[one.socket.fileno()] = one
        self._epoll.register(one.socket, select.EPOLLOUT)
        result = one.socket.connect_ex(self._target)
        if result not in (0, errno.EINPROGRESS):
            self._end(one, errno.errorcode.get(result, str(result)))

    def _ready(self, one: _Connection) -> None:
        try:
            if one.connected is None:
                failed = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed:
                    self._end(one, errno.errorcode.get(failed, str(failed)))
                    return
                one.connected = time.monotonic()
                one.socket.send(REQUEST)
                self._epoll.modify(one.socket, select.EPOLLIN)
                return
            part = one.socket.recv(4096)
            one.answer += part
            if not part or len(one.answer) >= len(ANSWER):
                self._end(one, None if one.answer == ANSWER else "SHORT ANSWER")
        except OSError as error:
            self._end(one, errno.errorcode.get(error.errno or 0, type(error).__name__))

    def _end(self, one: _Connection, error: str | None) -> None:
        del self._under_way[one.socket.fileno()]
        self._epoll.unregister(one.socket)
        one.socket.close()
        if error is not None:
            self.errors[error] += 1
            return
        self._whole.append(time.monotonic() - one.started)
        if one.connected is not None:
            self._connects.append(one.connected - one.started)
