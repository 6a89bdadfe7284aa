"""Links over faulty carriers on virtual time: deterministic, and fast because nothing waits.

A `World` has a clock and events. A `ServerHost` is a process with links (a `Registry`), a `ClientHost` one that dials
it over a `Line`, which has latency and bandwidth and can be cut by resets or by silence. The hosts do what the asyncio
shell does.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from tunnel.endpoint import Broken
from tunnel.mux import handshake
from tunnel.mux.errors import HelloRefused, PeerLeft, RemoteProtocolError
from tunnel.mux.handshake import Limits
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link, Role
from tunnel.mux.registry import Bounds, Registry
from tunnel.mux.window import Budget

ATTEMPT_TIMEOUT = 3.0
REDIAL_PAUSE = 0.5
PIPE = 512 << 10
"""Bytes a carrier takes ahead of the line: socket buffers and those of everything between."""


class World:
    """Virtual time, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        """The time."""
        return self.now

    def later(self, delay: float, call: Callable[[], None]) -> None:
        """Call after `delay` seconds; equal times in order of asking."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), call))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stops early, and returns True, once `until` holds."""
        end = self.now + seconds
        while True:
            if until is not None and until():
                return True
            if not self._events or self._events[0][0] > end:
                self.now = end
                return until is not None and until()
            at, _, call = heapq.heappop(self._events)
            self.now = at
            call()


@dataclass
class Line:
    """What lies between the hosts. `up` False: cut; then `silent` says whether anyone is told."""

    latency: float = 0.01
    bandwidth: float = 50e6
    up: bool = True
    carriers: list[Pipe] = field(default_factory=list)

    def cut(self, *, silent: bool) -> None:
        """Nothing passes any more; existing carriers never work again. With resets both ends learn it at once."""
        self.up = False
        carriers, self.carriers = self.carriers, []
        for pipe in carriers:
            pipe.dead = True
            if not silent:
                pipe.fail()

    def stall(self, seconds: float) -> None:
        """Everything sent from now on is late, as TCP is when packets are lost, but nothing breaks."""
        for pipe in self.carriers:
            pipe.free_at = [max(at, pipe.world.now) + seconds for at in pipe.free_at]

    def restore(self) -> None:
        """New carriers work again."""
        self.up = True


class Pipe:
    """One carrier: two ordered directions with latency and shared-nothing bandwidth."""

    def __init__(self, world: World, line: Line) -> None:
        self.world = world
        self.line = line
        self.dead = False
        self.queued = [0, 0]
        self.free_at = [0.0, 0.0]
        self.on_message: list[Callable[[bytes], None] | None] = [None, None]
        self.on_end: list[Callable[[], None] | None] = [None, None]
        self.on_room: list[Callable[[], None] | None] = [None, None]
        line.carriers.append(self)

    def send(self, side: int, message: bytes) -> None:
        """From `side` to the other one."""
        self.queued[side] += len(message)
        start = max(self.world.now, self.free_at[side])
        self.free_at[side] = sent = start + len(message) / self.line.bandwidth
        self.world.later(sent - self.world.now, lambda: self._left(side, len(message)))
        self.world.later(sent - self.world.now + self.line.latency, lambda: self._arrive(1 - side, message))

    def fail(self) -> None:
        """Both ends see the carrier break, soon."""
        self.dead = True
        for side in (0, 1):
            self.world.later(0.001, lambda side=side: self._end(side))  # type: ignore[misc]  # binds the loop variable

    def close(self, side: int) -> None:
        """`side` ends the carrier; the other one learns it after the latency."""
        if self in self.line.carriers:
            self.line.carriers.remove(self)
        if not self.dead:
            self.dead = True
            self.world.later(self.line.latency, lambda: self._end(1 - side))
        self.on_message[side] = self.on_end[side] = self.on_room[side] = None

    def _left(self, side: int, size: int) -> None:
        self.queued[side] -= size
        room = self.on_room[side]
        if room is not None and not self.dead:
            room()

    def _arrive(self, side: int, message: bytes) -> None:
        take = self.on_message[side]
        if take is not None and not self.dead:
            take(message)

    def _end(self, side: int) -> None:
        end = self.on_end[side]
        if end is not None:
            end()


class Host:
    """What both sides share: pumping one link's lanes over pipes, and its timer."""

    def __init__(self, world: World, side: int) -> None:
        self.world = world
        self.side = side
        self.faults: list[Exception] = []
        self.errors: list[Exception] = []
        """Protocol errors seen from the peer."""
        self.on_batch: Callable[[Lane, bytes], bytes] = lambda lane, message: message
        """May look at, or falsify, what this host sends."""


class Shell:
    """One link's shell on a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.world = host.world
        self.link: Link
        self.pipes: dict[Lane, tuple[Pipe, int]] = {}
        self.wanted: Callable[[Lane], None] = lambda lane: None
        self.lost: Callable[[Lane], None] = lambda lane: None
        self.suspected: Callable[[Lane], None] = lambda lane: None
        self._timer = 0

    def attach(self, lane: Lane, generation: int, pipe: Pipe, first: bytes | None = None) -> None:
        """Use `pipe` for the lane from now on; `first` goes out before anything else."""
        side = self.host.side
        older = self.pipes.pop(lane, None)
        if older is not None:
            older[0].close(side)
        self.pipes[lane] = (pipe, generation)
        pipe.on_message[side] = lambda message: self._receive(lane, generation, message)
        pipe.on_end[side] = lambda: self.drop(lane, generation)
        pipe.on_room[side] = lambda: self._pump(lane)
        if first is not None:
            pipe.send(side, first)
        self._pump(lane)
        self.rearm()

    def drop(self, lane: Lane, generation: int) -> None:
        """The lane's carrier of this generation is gone."""
        held = self.pipes.get(lane)
        if held is not None and held[1] == generation:
            del self.pipes[lane]
            held[0].close(self.host.side)
        if self.link.detach(lane, generation):
            self.lost(lane)

    def rearm(self) -> None:
        """Ask the link when it wants to be called."""
        at = self.link.next_timeout()
        if at is not None:
            self.on_timer(at)

    def on_ready(self, lane: Lane) -> None:
        """LinkShell."""
        self.world.later(0.0, lambda: self._pump(lane))

    def on_want(self, lane: Lane) -> None:
        """LinkShell."""
        self.wanted(lane)

    def on_suspect(self, lane: Lane) -> None:
        """LinkShell."""
        self.suspected(lane)

    def on_timer(self, at: float) -> None:
        """LinkShell."""
        self._timer += 1
        serial = self._timer
        self.world.later(max(0.0, at - self.world.now), lambda: self._fire(serial))

    def on_fault(self, error: Exception) -> None:
        """LinkShell."""
        self.host.faults.append(error)

    def _fire(self, serial: int) -> None:
        if serial == self._timer:
            self.link.on_timeout()
            self.rearm()

    def _pump(self, lane: Lane) -> None:
        held = self.pipes.get(lane)
        side = self.host.side
        while held is not None and held[0].queued[side] < PIPE:
            message = self.link.next_batch(lane)
            if message is None:
                return
            held[0].send(side, self.host.on_batch(lane, message))

    def _receive(self, lane: Lane, generation: int, message: bytes) -> None:
        held = self.pipes.get(lane)
        if held is None or held[1] != generation:
            return
        try:
            self.link.receive(lane, message)
        except PeerLeft:
            self.drop(lane, generation)
        except RemoteProtocolError as error:
            self.host.errors.append(error)
            self.drop(lane, generation)


class ServerHost(Host):
    """A server process. `forget` is its restart."""

    def __init__(
        self,
        world: World,
        make_acceptor: Callable[[Link], Acceptor],
        *,
        limits: Limits | None = None,
        budget: Budget | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(world, 1)
        self.limits = limits or Limits()
        self.budget = budget or Budget()
        self.bounds = bounds or Bounds()
        self._make_acceptor = make_acceptor
        self._instances = itertools.count(1)
        self.restart()

    def restart(self) -> None:
        """The process is a new one that knows nothing; carriers of the old one must be cut by the caller."""
        self.shells: dict[Link, Shell] = {}
        self.registry = Registry(self._make_link, self.bounds)

    @property
    def link(self) -> Link:
        """The only link."""
        (link,) = self.registry.links()
        return link

    def greet(self, pipe: Pipe, message: bytes, session: str) -> None:
        """The first message of a new carrier, whose sender proved to be `session`."""
        try:
            hello = handshake.parse(message)
            link, answer, replaced = self.registry.greet(hello, session)
        except RemoteProtocolError as error:
            self.errors.append(error)
            if isinstance(error, HelloRefused):
                pipe.send(1, handshake.go_away(error.code, str(error)))
            else:
                pipe.close(1)
            return
        for older in replaced:
            older.end(Broken.LINK_LOST)
        self.shells[link].attach(hello.lane, hello.generation, pipe, answer)

    def _make_link(self, session: str) -> Link:
        shell = Shell(self)
        shell.link = Link(
            role=Role.SERVER,
            session=session,
            instance=b"server%010d" % next(self._instances),
            acceptor=None,
            shell=shell,
            clock=self.world.clock,
            budget=self.budget,
            limits=self.limits,
        )
        shell.suspected = lambda lane: shell.drop(lane, shell.pipes[lane][1])
        shell.link.acceptor = self._make_acceptor(shell.link)
        self.shells[shell.link] = shell
        return shell.link


class ClientHost(Host):
    """A client process that keeps its link alive over `line`. `session` is proven, `claims` is what its hello says."""

    _instances = itertools.count(1)

    def __init__(
        self,
        world: World,
        line: Line,
        server: ServerHost,
        acceptor: Acceptor,
        *,
        session: str = "session",
        claims: str | None = None,
        instance: bytes | None = None,
        limits: Limits | None = None,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(world, 0)
        self.line = line
        self.server = server
        self.session = session
        self.budget = budget or Budget()
        self.refusals: list[PeerLeft] = []
        self.attached_at: list[tuple[float, Lane]] = []
        self.closed = False
        self._dialling: set[Lane] = set()
        self.shell = Shell(self)
        self.link = self.shell.link = Link(
            role=Role.CLIENT,
            session=claims or session,
            instance=instance or b"client%010d" % next(self._instances),
            acceptor=acceptor,
            shell=self.shell,
            clock=world.clock,
            budget=self.budget,
            limits=limits,
        )
        self.shell.wanted = self.dial
        self.shell.suspected = self.dial
        self.shell.lost = self._lost
        self.dial(Lane.INTERACTIVE)

    def dial(self, lane: Lane) -> None:
        """Try until the lane has a new carrier."""
        if lane not in self._dialling and not self.closed:
            self._dialling.add(lane)
            self._attempt(lane)

    def close(self) -> None:
        """The process is gone."""
        self.closed = True
        for lane, (_, generation) in list(self.shell.pipes.items()):
            self.shell.drop(lane, generation)

    def _lost(self, lane: Lane) -> None:
        if lane is Lane.INTERACTIVE:
            self.dial(lane)

    def _attempt(self, lane: Lane) -> None:
        if self.closed:
            return
        if lane is Lane.BULK and not self.link.attached:
            self.world.later(REDIAL_PAUSE, lambda: self._attempt(lane))
            return
        pipe = Pipe(self.world, self.line)
        pipe.dead = not self.line.up
        settled = False

        def settle() -> bool:
            nonlocal settled
            first, settled = not settled, True
            return first

        def failed() -> None:
            if settle():
                pipe.close(0)
                self.world.later(REDIAL_PAUSE, lambda: self._attempt(lane))

        def answered(message: bytes) -> None:
            try:
                answer = handshake.parse(message)
                self.link.attach(answer)
            except PeerLeft as left:
                self.refusals.append(left)
                if left.permanent:
                    self.closed = True
                failed()
            except RemoteProtocolError as error:
                self.errors.append(error)
                failed()
            else:
                settle()
                self._dialling.discard(lane)
                self.attached_at.append((self.world.now, lane))
                self.shell.attach(lane, answer.generation, pipe)
                for other, (_, generation) in list(self.shell.pipes.items()):
                    if self.link.lanes[other].attached != generation:
                        self.shell.drop(other, generation)

        def connected() -> None:
            if not pipe.dead:
                pipe.on_message[1] = lambda message: self.server.greet(pipe, message, self.session)
                pipe.send(0, self.link.hello(lane))

        pipe.on_message[0] = answered
        pipe.on_end[0] = failed
        self.world.later(2 * self.line.latency, connected)
        self.world.later(ATTEMPT_TIMEOUT, failed)
