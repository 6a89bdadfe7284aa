"""A network on virtual time between one stack and several peers, with faults by seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.endpoint import Broken
from tunnel.stack import EchoRequest, Limits, Stack, TcpConnection, UdpAssociation, UdpHandler
from tunnel.stack.tests.peer import Peer
from tunnel.stack.vocabulary import Packet


@dataclass(frozen=True)
class Faults:
    """Probabilities per packet, and the most that one is delayed (seconds)."""

    loss: float = 0.0
    duplicate: float = 0.0
    jitter: float = 0.0


class Program:
    """What the stack's owner does with one connection: sends `data`, reads with delays, ends both ways."""

    def __init__(self, network: Network, connection: TcpConnection, data: bytes) -> None:
        self._network = network
        self.connection = connection
        self._data = memoryview(data)
        self.got = bytearray()
        self.eof = False
        self.closed: list[Broken | None] = []
        self.unconsumed = 0
        self.most_unconsumed = 0

    def start(self) -> None:
        """Accept and begin to send."""
        self.connection.accept()
        self.on_writable()

    def on_data(self, data: memoryview) -> None:
        """Keep it, and consume it later."""
        assert not self.eof
        assert not self.closed
        self.got += data
        count = len(data)
        self.unconsumed += count
        self.most_unconsumed = max(self.most_unconsumed, self.unconsumed)

        def consume() -> None:
            self.unconsumed -= count
            self.connection.consumed(count)

        self._network.later(self._network.random.uniform(0, 0.01), consume)

    def on_eof(self) -> None:
        """Note it."""
        assert not self.eof
        self.eof = True

    def on_writable(self) -> None:
        """Send on; then the end."""
        while self._data:
            taken = self.connection.send(self._data[: self._network.random.randrange(1, 30000)])
            if not taken:
                return
            self._data = self._data[taken:]
        self.connection.send_eof()

    def on_closed(self, broken: Broken | None) -> None:
        """Note it."""
        self.closed.append(broken)


def _port(packet: Packet) -> int:
    """Destination port of a TCP packet over IPv4."""
    return int.from_bytes(packet[0][32:34], "big")


class Network:
    """Moves packets and time."""

    def __init__(self, seed: int, faults: Faults, limits: Limits | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 100.0
        self._faults = faults
        self._serial = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._peers: dict[int, Peer] = {}
        self.programs: list[Program] = []
        self.answer = b""
        self.dial_delay = 0.0
        self.stack = Stack(self, random32=lambda: self.random.getrandbits(32), limits=limits)
        self.stack.on_wake(lambda urgent: self.later(0.0, self._flush))

    def on_tcp(self, connection: TcpConnection) -> Program:
        """Accept after the time that a dial takes."""
        program = Program(self, connection, self.answer)
        self.programs.append(program)
        self.later(self.dial_delay, program.start)
        return program

    def on_udp(self, association: UdpAssociation) -> UdpHandler:
        """Not in this network."""
        raise NotImplementedError

    def on_echo(self, request: EchoRequest) -> None:
        """Not in this network."""

    def add(self, port: int, peer: Peer) -> None:
        """A peer begins."""
        self._peers[port] = peer
        peer.start(self.now, self._to_stack)
        self._read_on(peer)

    def _read_on(self, peer: Peer) -> None:
        if peer not in self._peers.values():
            return
        peer.read(self.now, self._to_stack)
        if not peer.finished:
            self.later(0.003, lambda: self._read_on(peer))

    def vanish(self) -> None:
        """All peers are gone without a word."""
        self._peers.clear()

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Call after `delay` seconds of virtual time."""
        self._serial += 1
        heapq.heappush(self._events, (self.now + delay, self._serial, call))

    def run(self, until: Callable[[], bool], *, seconds: float = 120.0) -> bool:
        """Let time pass until the condition holds; False when it does not within `seconds`."""
        end = self.now + seconds
        while not until():
            times = [self._events[0][0]] if self._events else []
            times += [at for at in (self.stack.next_timeout(),) if at is not None]
            times += [at for peer in self._peers.values() if (at := peer.next_timeout()) is not None]
            if not times or min(times) > end:
                return False
            self.now = max(self.now, min(times))
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for peer in self._peers.values():
                peer.tick(self.now, self._to_stack)
            self.stack.on_timeout(self.now)
            self._flush()
        return True

    def _flush(self) -> None:
        while self.stack.ready:
            for packet in self.stack.flush(self.now):
                peer = self._peers.get(_port(packet))
                if peer is not None:
                    peer.watch(b"".join(packet))
                self._carry(packet, self._deliver_to_peer)

    def _deliver_to_peer(self, packet: bytes) -> None:
        port = _port([packet])
        if port in self._peers:
            self._peers[port].receive(packet, self.now, self._to_stack)

    def _to_stack(self, packet: Packet) -> None:
        self._carry(packet, self._deliver_to_stack)

    def _deliver_to_stack(self, packet: bytes) -> None:
        self.stack.receive(packet, self.now)
        self._flush()

    def _carry(self, packet: Packet, deliver: Callable[[bytes], None]) -> None:
        whole = b"".join(packet)
        copies = 0 if self.random.random() < self._faults.loss else 1
        copies += self.random.random() < self._faults.duplicate
        for _ in range(copies):
            self.later(0.0001 + self.random.uniform(0, self._faults.jitter), lambda: deliver(whole))
