"""A TCP line with latency: a program that forwards every connection and delays both directions by half a round trip.

    python -I line.py --listen ADDRESS:PORT --to ADDRESS:PORT [--rtt SECONDS] [--enter-net FILE] [--port-file FILE]

Bandwidth is left alone, as on a long fat pipe. Opening a connection costs a round trip too: what a client sends first
waits for it, since the handshake itself is answered at once by the kernel. End of stream travels like data; a reset
travels as a reset. A receiver that stops reading stops its sender: only what is under way is buffered.

With --enter-net the listening socket stays in the network namespace where the program was started, and the
connections go out from the namespace that FILE stands for, such as /proc/PID/ns/net.
"""

import argparse
import ctypes
import errno
import heapq
import os
import select
import socket
import struct
import time
from collections import deque
from pathlib import Path

_READ = 1 << 18
_UNDER_WAY_LIMIT = 48 << 20
"""Bytes on their way in one direction: 2.4 GB/s at 20 ms both ways, more than Python forwards."""
_MOST_LEAD = 0.0005
_LEARN = 0.05
_LINGER_NONE = struct.pack("ii", 1, 0)
_CLONE_NEWNET = 0x40000000
_TEMPORARY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR}


class Direction:
    """Bytes from one socket to the other, each chunk with the time at which it arrives."""

    def __init__(self, source: socket.socket, target: socket.socket, earliest: float) -> None:
        self.source = source
        self.target = target
        self.earliest = earliest
        self.chunks: deque[tuple[float, memoryview | None]] = deque()  # None is the end of the stream
        self.under_way = 0
        self.ended = False  # nothing more will be read
        self.blocked = False  # the target takes nothing now
        self.finished = False  # the end of the stream was handed on


class Connection:
    """One forwarded connection: `near` was accepted, `far` was dialled."""

    def __init__(self, near: socket.socket, far: socket.socket, opened: float) -> None:
        self.near = near
        self.far = far
        self.connecting = True
        self.closed = False
        self.outward = Direction(near, far, opened)
        self.inward = Direction(far, near, opened)

    def directions(self) -> tuple[Direction, Direction]:
        return (self.outward, self.inward)

    def reading(self, end: socket.socket) -> Direction:
        return self.outward if end is self.near else self.inward

    def writing(self, end: socket.socket) -> Direction:
        return self.inward if end is self.near else self.outward


class Line:
    """The event loop: one epoll, one heap of arrival times."""

    def __init__(self, listener: socket.socket, target: tuple[str, int], rtt: float) -> None:
        self._listener = listener
        self._target = target
        self._rtt = rtt
        self._epoll = select.epoll()
        self._ends: dict[int, tuple[Connection, socket.socket]] = {}
        self._interest: dict[int, int] = {}
        self._arrivals: list[tuple[float, int, Connection, Direction | None]] = []  # no direction: a reset
        self._sequence = 0
        self._lead = 0.0  # seconds by which to aim earlier: how late this program wakes, on average

    def run(self) -> None:
        self._listener.setblocking(False)
        self._epoll.register(self._listener, select.EPOLLIN)
        while True:
            # epoll counts in milliseconds, select in microseconds: precision matters to a delay.
            due = self._arrivals[0][0] - self._lead if self._arrivals else None
            pause = None if due is None else max(0.0, due - time.monotonic())
            select.select([self._epoll.fileno()], [], [], pause)
            for number, events in self._epoll.poll(0):
                if number == self._listener.fileno():
                    self._accept()
                elif number in self._ends:
                    self._on_events(*self._ends[number], events)
            self._deliver()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _TEMPORARY or error.errno == errno.ECONNABORTED:
                    return
                raise
            far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            for end in (near, far):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.connect_ex(self._target)
            connection = Connection(near, far, time.monotonic() + self._rtt)
            self._ends[near.fileno()] = (connection, near)
            self._ends[far.fileno()] = (connection, far)
            self._want(connection)

    def _on_events(self, connection: Connection, end: socket.socket, events: int) -> None:
        if connection.closed:
            return
        if connection.connecting and end is connection.far and events & (select.EPOLLOUT | select.EPOLLERR):
            if connection.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                for direction in connection.directions():
                    direction.ended = True
                connection.connecting = False
                self._schedule(time.monotonic() + self._rtt, connection, None)
                self._want(connection)
                return
            connection.connecting = False
            self._flush(connection, connection.outward)
        elif events & select.EPOLLOUT:
            self._flush(connection, connection.writing(end))
        if not connection.closed and events & ~select.EPOLLOUT:
            self._read(connection, connection.reading(end))
        if not connection.closed:
            self._want(connection)

    def _read(self, connection: Connection, direction: Direction) -> None:
        if direction.ended:
            return
        try:
            content = direction.source.recv(_READ)
        except OSError as error:
            if error.errno not in _TEMPORARY:
                direction.ended = True
                self._schedule(time.monotonic() + self._rtt / 2, connection, None)
            return
        arrival = max(time.monotonic(), direction.earliest) + self._rtt / 2
        direction.ended = not content
        direction.under_way += len(content)
        direction.chunks.append((arrival, memoryview(content) if content else None))
        if self._rtt:
            self._schedule(arrival, connection, direction)
        else:
            self._flush(connection, direction)

    def _schedule(self, arrival: float, connection: Connection, direction: Direction | None) -> None:
        self._sequence += 1
        heapq.heappush(self._arrivals, (arrival, self._sequence, connection, direction))

    def _deliver(self) -> None:
        now = time.monotonic()
        late = 0.0
        while self._arrivals and self._arrivals[0][0] <= now + self._lead:
            arrival, _, connection, direction = heapq.heappop(self._arrivals)
            late = now - arrival
            if connection.closed:
                continue
            if direction is None:
                self._close(connection, reset=True)
                continue
            self._flush(connection, direction)
            if not connection.closed:
                self._want(connection)
        self._lead = min(max(0.0, self._lead + late * _LEARN), _MOST_LEAD)

    def _flush(self, connection: Connection, direction: Direction) -> None:
        if connection.connecting:
            return
        now = time.monotonic()
        direction.blocked = False
        while direction.chunks and direction.chunks[0][0] <= now + self._lead:
            arrival, content = direction.chunks[0]
            try:
                if content is None:
                    direction.target.shutdown(socket.SHUT_WR)
                    direction.finished = True
                    direction.chunks.popleft()
                    continue
                sent = direction.target.send(content)
            except OSError as error:
                if error.errno in _TEMPORARY:
                    direction.blocked = True
                    return
                self._close(connection, reset=True)
                return
            direction.under_way -= sent
            if sent == len(content):
                direction.chunks.popleft()
            else:
                direction.chunks[0] = (arrival, content[sent:])
        if all(each.finished for each in connection.directions()):
            self._close(connection, reset=False)

    def _want(self, connection: Connection) -> None:
        """Tell epoll what is needed now; an end that needs nothing is not watched, or its hang-up would spin."""
        for end in (connection.near, connection.far):
            reading, writing = connection.reading(end), connection.writing(end)
            wanted = 0
            if not (reading.ended or reading.blocked or reading.under_way > _UNDER_WAY_LIMIT or connection.connecting):
                wanted |= select.EPOLLIN
            if writing.blocked or (connection.connecting and end is connection.far):
                wanted |= select.EPOLLOUT
            number = end.fileno()
            known = self._interest.get(number, 0)
            if wanted == known:
                continue
            if not known:
                self._epoll.register(number, wanted)
            elif not wanted:
                self._epoll.unregister(number)
            else:
                self._epoll.modify(number, wanted)
            self._interest[number] = wanted

    def _close(self, connection: Connection, *, reset: bool) -> None:
        connection.closed = True
        for end in (connection.near, connection.far):
            number = end.fileno()
            self._ends.pop(number, None)
            if self._interest.pop(number, 0):
                self._epoll.unregister(number)
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            end.close()


def _enter_network(handle: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(handle)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="A TCP line with latency.")
    parser.add_argument("--listen", type=_address, required=True)
    parser.add_argument("--to", type=_address, required=True)
    parser.add_argument("--rtt", type=float, default=0.0, help="seconds")
    parser.add_argument("--enter-net", metavar="FILE")
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    network = os.open(options.enter_net, os.O_RDONLY) if options.enter_net else None
    listener = socket.create_server(options.listen, backlog=1024)
    if options.port_file:
        unfinished = options.port_file.with_suffix(".new")
        unfinished.write_text(str(listener.getsockname()[1]))
        unfinished.rename(options.port_file)
    if network is not None:
        _enter_network(network)
    Line(listener, options.to, options.rtt).run()


if __name__ == "__main__":
    main()
