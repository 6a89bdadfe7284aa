"""One lane of a link: numbers, acknowledgement, what must be replayed, and how much may be under way (section 4, 7)."""

from __future__ import annotations

import enum
from collections import deque

from tunnel.mux import frames
from tunnel.mux.errors import RemoteProtocolError
from tunnel.mux.frames import Buffer
from tunnel.mux.schedule import Scheduler
from tunnel.mux.watchdog import Watchdog


class Lane(enum.IntEnum):
    """The two lanes. Part of the wire protocol."""

    INTERACTIVE = 0
    BULK = 1


class Shape:
    """What distinguishes the lanes; bytes."""

    def __init__(self, *, first: int, cap: int, near: int, batch: int, quantum: int, ack_after: int) -> None:
        self.first = first
        """What may be under way before it is known what the line delivers."""
        self.cap = cap
        """What may be under way at the most: a long line that delivers much needs it."""
        self.near = near
        """What may be under way even when the peer is near and nothing needs to be."""
        self.batch = batch
        self.quantum = quantum
        self.ack_after = ack_after


SHAPES = {
    Lane.INTERACTIVE: Shape(
        first=256 << 10, cap=256 << 10, near=256 << 10, batch=64 << 10, quantum=16 << 10, ack_after=32 << 10
    ),
    Lane.BULK: Shape(first=4 << 20, cap=8 << 20, near=1 << 20, batch=512 << 10, quantum=64 << 10, ack_after=256 << 10),
}

ACK_DELAY = 0.05
"""Seconds an acknowledgement may wait for company."""
LEAST_CAP = 64 << 10
"""Bytes a lane may have under way however slow the line."""
CAP_SECONDS = 1.0
"""A lane holds at most what its line delivers in this time."""
QUEUE_ROUNDS, QUEUE_SECONDS = 1.25, 0.008
"""And no more than it delivers in so many round trips and so many seconds: beyond that, bytes only wait in queues, in
front of everybody else's. Measured beside a bulk flow to a near peer, ping-pong's p99: 18 to 30 ms rather than 40."""
RATE_INTERVAL = 0.25
"""Seconds over which delivery is measured, at least."""
PAUSE = 0.01
"""Seconds with nothing under way after which delivery is measured anew: the sender had nothing to say."""


class LaneState:
    """Everything about one lane that outlives its carriers, and the watch over the current one."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.shape = SHAPES[lane]
        self.schedule = Scheduler(self.shape.quantum)
        self.generation = 0
        """Highest generation seen (server) or used (client)."""
        self.attached: int | None = None
        """Generation of the current carrier."""
        self.watchdog: Watchdog | None = None
        self.idle = True
        """The writer found nothing to write, and must be woken."""
        self.control: list[bytes] = []
        """Control frames for the current carrier: pongs, pings, want."""
        self._fruitless = 0
        self._acked_before = 0
        self.round_trip = 0.0
        """Seconds, as the link knows it; 0: unknown."""
        self.active_at = 0.0
        """When a batch last went either way."""
        self.restart()

    def restart(self) -> None:
        """Forget all numbers: the other end is a new one."""
        self.sent = 0
        self.acked = 0
        self.under_way = 0
        """Bytes of batches that are not acknowledged."""
        self._kept: deque[bytes] = deque()
        self._replay = 0
        self.received = 0
        self.poisoned = 0
        """Number of a batch that was malformed once."""
        self.ack_said = 0
        self._ack_bytes = 0
        self.ack_due: float | None = None
        self.cap = self.shape.first
        self._measured_at: float | None = None
        self._measured = 0
        self._cleared_at = 0.0
        """When everything under way was last acknowledged."""

    # Sending.

    @property
    def replaying(self) -> bool:
        """Whether old batches must go out before any new one."""
        return self._replay > 0

    @property
    def room(self) -> int:
        """Bytes a new batch may have; 0 while the lane is full."""
        if self.under_way >= self.cap:
            return 0
        return min(self.shape.batch, max(self.cap // 2, LEAST_CAP // 4))

    def next_replay(self, control: list[bytes]) -> bytes:
        """The next old batch, with a fresh control section."""
        kept = self._kept[len(self._kept) - self._replay]
        self._replay -= 1
        return frames.with_control(kept, control)

    def keep(self, control: list[bytes], parts: list[Buffer], now: float) -> bytes:
        """Number a new batch and keep it until it is acknowledged; returns the message."""
        self.sent += 1
        message = frames.message(self.sent, control, parts)
        self._kept.append(message)
        if not self.under_way and (self._measured_at is None or now - self._cleared_at > PAUSE):
            self._measured_at, self._measured = now, 0
        self.under_way += len(message)
        self.active_at = now
        if self.watchdog is not None:
            self.watchdog.sent(now)
        return message

    def acknowledge(self, number: int, now: float) -> bool:
        """The peer has all batches up to `number`; True when that is news. Raises RemoteProtocolError."""
        if number > self.sent:
            raise RemoteProtocolError(f"acknowledgement of batch {number}, sent {self.sent}")
        if number <= self.acked:
            return False
        full = self.under_way >= self.cap
        while self.acked < number:
            self.acked += 1
            size = len(self._kept.popleft())
            self.under_way -= size
            self._measured += size
        self._replay = min(self._replay, len(self._kept))
        self._pace(now, full)
        if self.watchdog is not None:
            self.watchdog.life(now, self.under_way > 0)
        return True

    def _pace(self, now: float, full: bool) -> None:
        """Let the cap follow what the line delivers, so that nothing waits long in queues we do not see."""
        if not self.under_way:
            self._cleared_at = now
            if not full:
                self._measured_at = None  # the sender paused, so this says nothing of the line
        started = self._measured_at
        if started is None:
            if self.under_way:
                self._measured_at, self._measured = now, 0
            return
        if now - started < RATE_INTERVAL:
            return
        rate = self._measured / (now - started)
        needed = max(self.shape.near, int(rate * (self.round_trip * QUEUE_ROUNDS + QUEUE_SECONDS)))
        wanted = min(needed, int(rate * CAP_SECONDS))
        if full or wanted > self.cap:
            self.cap = max(LEAST_CAP, min(self.shape.cap, wanted))
        self._measured_at, self._measured = now, 0

    # Receiving.

    def accept_number(self, number: int) -> bool:
        """Whether a batch is new. Raises RemoteProtocolError on a gap. The batch counts only after `count_received`."""
        if number <= self.received:
            return False
        if number != self.received + 1:
            raise RemoteProtocolError(f"batch {number} after {self.received}")
        return True

    def count_received(self, size: int, now: float) -> bool:
        """The next batch has been taken; True when its acknowledgement should not wait."""
        self.received += 1
        self.active_at = now
        self._ack_bytes += size
        if self.ack_due is None:
            self.ack_due = now + ACK_DELAY
        return self._ack_bytes >= self.shape.ack_after

    @property
    def owes_ack(self) -> bool:
        """Whether batches are received that have not been acknowledged."""
        return self.ack_said < self.received

    def ack(self) -> bytes:
        """The acknowledgement frame, which settles what is owed."""
        self.ack_said = self.received
        self._ack_bytes = 0
        self.ack_due = None
        return frames.frame(frames.Type.ACK, self.received, self.lane)

    def ack_again(self) -> None:
        """A carrier ended that may have taken an acknowledgement with it."""
        self.ack_said = min(self.ack_said, max(0, self.received - 1))

    # Carriers.

    def patience(self, seconds: float) -> float:
        """For a carrier about to be attached: how long it may be silent. More when the last ones got nothing through
        before they were given up, so that a line too slow for a batch in that time still gets on."""
        stuck = self.under_way > 0 and self.acked == self._acked_before
        self._fruitless = min(self._fruitless + 1, 4) if stuck else 0
        self._acked_before = self.acked
        return seconds * (1 << self._fruitless)

    def attach(self, generation: int, peer_received: int, watchdog: Watchdog, now: float) -> None:
        """A new carrier: the peer has everything up to `peer_received`. Raises RemoteProtocolError."""
        self._measured_at = None  # the time without a carrier says nothing of the line
        # Less than was acknowledged is in order: an older carrier went on delivering after this hello was written.
        self.acknowledge(peer_received, now)
        self._replay = len(self._kept)
        self.attached = generation
        self.generation = max(generation, self.generation)
        self.watchdog = watchdog
        self.control.clear()
        self.active_at = now
        if self.under_way:
            watchdog.sent(now)

    def detach(self) -> None:
        """The carrier is gone; everything else stays."""
        self.attached = None
        self.watchdog = None
        self.control.clear()
        self._replay = len(self._kept)
