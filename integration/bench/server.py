"""The workload: one port, one command line per connection. One file of standard library, because it runs in a pod.

* `SOURCE seconds` sends the pattern until that time is over, then ends its direction.
* `SINK` takes the pattern in frames (see `send_frames`), then answers `count 1` (or `count 0`: bytes differed). The end
  is said in the stream, because `kubectl port-forward` carries no half-close.
* `ECHO` sends back what comes.
* `GET ...` up to an empty line gets a tiny answer; the client closes.

The pattern is the same pseudo-random megabyte over and over: incompressible, and every byte that arrives can be
compared at the speed of memcmp. Its length is odd, so that a lost, repeated or swapped block shows.
"""

from __future__ import annotations

import random
import select
import signal
import socket
import struct
import sys
import threading
import time

PATTERN_LENGTH = (1 << 20) - 3
BLOCK = 1 << 20
FRAME = 128 << 10
LENGTH = struct.Struct("!Q")
PATTERN = random.Random(2205).randbytes(PATTERN_LENGTH) * 3
SEND_BUFFER = 512 << 10
"""Bytes a bulk sender's kernel may hold: with the default of megabytes, 64 flows end long after their time."""
QUIET_LIMIT = 30.0
"""Seconds without progress after which a bulk connection is given up."""
LINE_LIMIT = 8192
READY = b"ready\n"
"""Bulk begins with this from the server: what the client sends after its command is then not read with it."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
_VIEW = memoryview(PATTERN)


def send_pattern(connection: socket.socket, seconds: float) -> int:
    """Send the pattern for `seconds` and end the direction; how many bytes the kernel took."""
    sent = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        offset = sent % PATTERN_LENGTH
        sent += connection.send(_VIEW[offset : offset + BLOCK])
    connection.shutdown(socket.SHUT_WR)
    return sent


def take_pattern(connection: socket.socket) -> tuple[int, bool]:
    """Receive until the peer ends its direction: how many bytes, and whether each was the pattern's."""
    view = memoryview(bytearray(BLOCK))
    taken = 0
    intact = True
    while count := connection.recv_into(view):
        intact = PATTERN.startswith(view[:count], taken % PATTERN_LENGTH) and intact
        taken += count
    return taken, intact


def send_frames(connection: socket.socket, seconds: float) -> int:
    """Send the pattern for `seconds` in frames, each behind its length, and a length of 0; how many bytes."""
    sent = 0
    length = LENGTH.pack(FRAME)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        offset = sent % PATTERN_LENGTH
        block = _VIEW[offset : offset + FRAME]
        if connection.sendmsg([length, block]) < FRAME + LENGTH.size:
            raise ConnectionError("a blocking send took less than everything")
        sent += FRAME
    connection.sendall(LENGTH.pack(0))
    return sent


def take_frames(connection: socket.socket) -> tuple[int, bool]:
    """Receive frames up to the length of 0: how many bytes of pattern, and whether each was right."""
    view = memoryview(bytearray(FRAME + LENGTH.size))
    taken = 0
    intact = True
    _receive(connection, view[: LENGTH.size])
    (length,) = LENGTH.unpack(view[: LENGTH.size])
    while length:
        if length != FRAME:
            return taken, False
        _receive(connection, view)  # the frame, and the next one's length
        intact = PATTERN.startswith(view[:FRAME], taken % PATTERN_LENGTH) and intact
        taken += FRAME
        (length,) = LENGTH.unpack(view[FRAME:])
    return taken, intact


def prepare_bulk(connection: socket.socket) -> None:
    """Blocking in the kernel, with its limit on silence: calls that wait for everything then are one system call."""
    connection.settimeout(None)
    limit = struct.pack("ll", int(QUIET_LIMIT), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)


def _receive(connection: socket.socket, view: memoryview) -> None:
    if connection.recv_into(view, len(view), socket.MSG_WAITALL) != len(view):
        raise ConnectionError("the stream ended within a frame")


class Server:
    """Answers echo and GET in one epoll loop; bulk connections get a thread each, which sleeps in system calls."""

    def __init__(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._open: dict[int, socket.socket] = {}
        self._echoes: set[int] = set()
        self._lines: dict[int, bytes] = {}

    def run(self) -> None:
        """Serve for ever."""
        listening = self._listener.fileno()
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == listening:
                    self._accept()
                else:
                    self._ready(descriptor)

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _peer = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open[connection.fileno()] = connection
            self._epoll.register(connection, select.EPOLLIN)

    def _ready(self, descriptor: int) -> None:
        connection = self._open[descriptor]
        try:
            data = connection.recv(65536)
            if not data:
                self._forget(connection).close()
            elif descriptor in self._echoes:
                connection.send(data)  # ping-pong never fills a socket buffer
            else:
                self._read_line(connection, self._lines.pop(descriptor, b"") + data)
        except OSError:
            self._forget(connection).close()

    def _read_line(self, connection: socket.socket, data: bytes) -> None:
        line, newline, rest = data.partition(b"\n")
        command = line.strip()
        if not newline or (command.startswith(b"GET ") and b"\r\n\r\n" not in data):
            if len(data) > LINE_LIMIT:
                self._forget(connection).close()
            else:
                self._lines[connection.fileno()] = data
        elif command.startswith(b"GET "):
            connection.send(ANSWER)
        elif command == b"ECHO":
            self._echoes.add(connection.fileno())
            if rest:
                connection.send(rest)
        elif command == b"SINK" or command.startswith(b"SOURCE "):
            self._forget(connection)
            threading.Thread(target=_bulk, args=(connection, command), daemon=True).start()
        else:
            self._forget(connection).close()

    def _forget(self, connection: socket.socket) -> socket.socket:
        descriptor = connection.fileno()
        self._epoll.unregister(connection)
        self._echoes.discard(descriptor)
        self._lines.pop(descriptor, None)
        return self._open.pop(descriptor)


def _bulk(connection: socket.socket, command: bytes) -> None:
    prepare_bulk(connection)
    try:
        with connection:
            connection.sendall(READY)
            if command == b"SINK":
                taken, intact = take_frames(connection)
                connection.sendall(b"%d %d\n" % (taken, intact))
            else:
                send_pattern(connection, float(command.split()[1]))
                connection.recv(1)
    except OSError as error:
        print("bench server:", command.decode(), "ended:", error, file=sys.stderr)  # noqa: T201 - its only log


def main() -> None:
    """`server.py [PORT [ADDRESS]]`: says on which port, then serves."""
    # As process 1 of a container it would otherwise outlive every request to end, up to the grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    arguments = sys.argv[1:]
    server = Server(arguments[1] if len(arguments) > 1 else "0.0.0.0", int(arguments[0]) if arguments else 8080)
    print(server.port, flush=True)  # noqa: T201 - whoever starts it waits for this line
    server.run()


if __name__ == "__main__":
    main()
