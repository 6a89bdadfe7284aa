"""The sending half of a TCP connection: what waits, what is in flight, what the peer's window allows.

Payload is not copied, but for small pieces: a record holds slices of what the owner handed to `send`, and goes to the
device as an iovec.
Sequence numbers are absolute. There is no congestion control, because there is no network: the peer is the kernel
of this machine, and its window is the only bound. After a loss nothing new is sent until all is repaired (NewReno's
recovery, RFC 6582, without its window arithmetic), which is what a kernel short of memory needs.
"""

from __future__ import annotations

from collections import deque

from tunnel import pieces
from tunnel.stack.window import Allowance

_MAX_PIECES = 64
"""Buffers in one packet; more are joined (they are small), so that no iovec is too long."""


class Record:
    """One (super-)segment in flight, kept until acknowledged."""

    __slots__ = ("begin", "buffers", "end", "fin", "repeated", "sent_at")

    def __init__(self, begin: int, end: int, buffers: list[memoryview], fin: bool, sent_at: float) -> None:
        self.begin = begin
        self.end = end
        """Sequence number behind it; a FIN counts one."""
        self.buffers = buffers
        self.fin = fin
        self.sent_at = sent_at
        self.repeated = False

    @property
    def length(self) -> int:
        """Payload bytes."""
        return self.end - self.begin - self.fin


class Sender:
    """Queue, flight and window of one direction."""

    __slots__ = (
        "_allowance",
        "_waiting",
        "duplicates",
        "edge",
        "fin_sent",
        "fin_wanted",
        "flight",
        "max_segment",
        "max_window",
        "next",
        "recover",
        "unacknowledged",
        "waiting_bytes",
    )

    def __init__(self, start: int, allowance: Allowance, max_segment: int) -> None:
        """`start`: sequence number of the first byte. `max_segment`: payload bytes in one packet."""
        self._allowance = allowance
        self._waiting: pieces.Pieces = deque()
        self.waiting_bytes = 0
        self.flight: deque[Record] = deque()
        self.unacknowledged = start
        self.next = start
        self.edge = start
        """First sequence number the peer does not take."""
        self.max_window = 0
        """The largest window the peer ever offered: a measure of its buffer."""
        self.max_segment = max_segment
        self.fin_wanted = False
        self.fin_sent = False
        self.duplicates = 0
        self.recover: int | None = None
        """While repairing a loss: the sequence number that ends the repair."""

    @property
    def room(self) -> int:
        """Bytes that `take` would take."""
        return max(0, self._allowance.limit - self.waiting_bytes - (self.next - self.unacknowledged))

    def take(self, data: memoryview) -> int:
        """Queue a prefix of `data`; its length."""
        size = len(data)
        room = self._allowance.limit - self.waiting_bytes - (self.next - self.unacknowledged)
        if size > room:
            if room <= 0:
                return 0
            data = data[:room]
            size = room
        if size:
            pieces.push(self._waiting, data)
            self.waiting_bytes += size
        return size

    def next_record(self, now: float) -> Record | None:
        """Cut the next segment that may leave now, and count it as in flight."""
        if self.recover is not None:
            return None
        size = self.waiting_bytes
        room = self.edge - self.next
        if size == 0:
            if not self.fin_wanted or self.fin_sent or room < 1:
                return None
        else:
            if size > self.max_segment:
                size = self.max_segment
            if size > room:
                if room <= 0 or (self.flight and room < size >> 1 and room < self.max_window >> 2):
                    return None  # silly window avoidance: what is in flight will open the window
                size = room
        buffers = self._cut(size)
        fin = self.fin_wanted and not self.waiting_bytes and room > size
        begin = self.next
        self.next = end = begin + size + fin
        self.fin_sent = fin
        record = Record(begin, end, buffers, fin, now)
        self.flight.append(record)
        return record

    def _cut(self, size: int) -> list[memoryview]:
        self.waiting_bytes -= size
        waiting = self._waiting
        buffers: list[memoryview] = []
        while size:
            head = pieces.first(waiting)
            if len(head) <= size:
                buffers.append(head)
                waiting.popleft()
                size -= len(head)
            else:
                buffers.append(head[:size])
                waiting[0] = head[size:]
                break
        if len(buffers) > _MAX_PIECES:
            return [memoryview(b"".join(buffers))]
        return buffers

    def acknowledge(self, acknowledgement: int) -> Record | None:
        """Everything below is with the peer. The newest record that this completes, for the round-trip time."""
        self._allowance.moved(acknowledgement - self.unacknowledged)
        self.unacknowledged = acknowledgement
        self.duplicates = 0
        flight = self.flight
        newest: Record | None = None
        while flight and flight[0].end <= acknowledgement:
            newest = flight.popleft()
        if self.recover is not None and acknowledgement >= self.recover:
            self.recover = None
        return newest

    def offer(self, acknowledgement: int, window: int) -> None:
        """The peer takes `window` bytes from `acknowledgement` on."""
        self.edge = acknowledgement + window
        if window > self.max_window:
            self.max_window = window

    def repeat(self) -> Record | None:
        """The oldest record in flight, without what was acknowledged of it, to be sent again."""
        if not self.flight:
            return None
        record = self.flight[0]
        record.repeated = True
        skip = self.unacknowledged - record.begin
        if skip > 0:
            record.begin += skip
            buffers = record.buffers
            while buffers and skip >= len(buffers[0]):
                skip -= len(buffers.pop(0))
            if skip and buffers:
                buffers[0] = buffers[0][skip:]
        if self.recover is None:
            self.recover = self.next
        return record

    @property
    def blocked(self) -> bool:
        """Something waits that only a window update can release."""
        waits = self.waiting_bytes > 0 or (self.fin_wanted and not self.fin_sent)
        return waits and not self.flight

    def drop(self) -> None:
        """The connection is over: free what is held."""
        self._waiting.clear()
        self.flight.clear()
        self.waiting_bytes = 0
        self._allowance.release()
