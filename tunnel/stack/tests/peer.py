"""A small model of the other side: a TCP that opens, sends go-back-N and reads at its own pace, on virtual time.

It is written for clarity, and strict: it raises `Misbehaviour` when the stack breaks a rule of TCP that a kernel would
silently work around (a window edge that moves back, data beyond the window, an acknowledgement of what was not sent).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tunnel.stack import ip
from tunnel.stack.segment import ACK, FIN, HEADER, RST, SYN, SegmentBuilder, parse_syn_options
from tunnel.stack.vocabulary import Packet

LAPTOP = bytes([10, 99, 0, 1])
HOST = bytes([10, 99, 1, 1])
_SCALE = 3
_RTO = 0.4


class Misbehaviour(AssertionError):
    """The stack broke a rule."""


class Peer:
    """One connection from the laptop's side."""

    def __init__(
        self,
        seed: int,
        data: bytes,
        *,
        port: int = 40000,
        to_port: int = 7,
        buffer: int = 30000,
        mss: int = 1460,
        initial: int | None = None,
    ) -> None:
        """`data`: all that it sends before it ends its direction. `buffer`: what it takes before it reads."""
        self._random = random.Random(seed)
        self._builder = SegmentBuilder(LAPTOP + HOST, port, to_port, 1400)
        self._iss = self._random.getrandbits(32) if initial is None else initial
        self._data = data
        self._mss = mss
        self._una = 0  # relative to the initial sequence number; 0 is the SYN, 1 the first byte
        self._next = 0
        self._highest = 0
        self._irs: int | None = None
        self._received = 0
        self._edge: int | None = None
        self._buffer = buffer
        self._unread = 0
        self._edge_told = buffer
        self._scale = 0
        self._promised = 0
        self._deadline: float | None = None
        self.got = bytearray()
        """What arrived, in order."""
        self.eof = False
        self.reset = False
        self.held = False
        """While set, the reader takes nothing."""

    @property
    def finished(self) -> bool:
        """Both directions ended and everything is acknowledged, or the connection was reset."""
        return self.reset or (self.eof and self._una == len(self._data) + 2 and self._unread == 0)

    def start(self, now: float, send: Callable[[Packet], None]) -> None:
        """Send the SYN."""
        options = b"\x02\x04" + self._mss.to_bytes(2, "big") + bytes([1, 3, 3, _SCALE])
        window = min(self._buffer, 65535)
        send([self._builder.build(self._iss, 0, SYN, window, 0, options)])
        self._next = self._highest = 1
        self._deadline = now + _RTO

    def next_timeout(self) -> float | None:
        """When `tick` wants to be called."""
        return self._deadline

    def read(self, now: float, send: Callable[[Packet], None]) -> None:
        """The program reads what is there."""
        if self._unread and not self.held:
            self._unread = 0
            if not self.reset and self._irs is not None:
                self._acknowledge(send)

    def tick(self, now: float, send: Callable[[Packet], None]) -> None:
        """The retransmission timer: back to what is not acknowledged."""
        if self._deadline is None or now < self._deadline or self.reset:
            return
        self._deadline = now + _RTO
        if self._irs is None:
            self.start(now, send)
        elif self._una < len(self._data) + 2:
            if self._edge is not None and self._edge <= self._una:
                # Closed window: a probe just below it.
                send([self._builder.build(self._iss + self._una - 1, self._acknowledgement(), ACK, self._window(), 0)])
            self._next = self._una
            self._transmit(now, send)
        else:
            self._deadline = None

    def watch(self, packet: bytes) -> None:
        """A packet of the stack, in the order of sending: what it promises is never taken back."""
        view = ip.parse(packet)
        assert view is not None
        _, _, _, acknowledgement, _, flags, window, _, _ = HEADER.unpack_from(packet, view.start)
        if not flags & RST:
            scale = 0 if flags & SYN else self._scale
            edge = ((acknowledgement - self._iss) & 0xFFFFFFFF) + (window << scale)
            if edge <= self._promised - (1 << scale):  # less is rounding (RFC 7323, 2.4)
                raise Misbehaviour(f"the window edge moved back from {self._promised} to {edge}")
            self._promised = max(self._promised, edge)

    def receive(self, packet: bytes, now: float, send: Callable[[Packet], None]) -> None:
        """A packet of the stack."""
        view = ip.parse(packet)
        assert view is not None
        assert view.protocol == ip.TCP
        _, _, sequence, acknowledgement, offset, flags, window, _, _ = HEADER.unpack_from(packet, view.start)
        start = view.start + (offset >> 4 << 2)
        if flags & RST:
            self.reset = True
            return
        if self.reset:
            return
        relative = (acknowledgement - self._iss) & 0xFFFFFFFF
        if flags & SYN:
            if self._irs is None:
                self._irs = sequence
                self._una = self._next = max(self._next, 1)
                self._edge = 1 + window
                self._scale = parse_syn_options(packet, view.start + 20, start).window_scale or 0
            self._acknowledge(send)
            self._transmit(now, send)
            return
        if self._irs is None:
            raise Misbehaviour("data before the handshake")
        if relative > self._highest:
            raise Misbehaviour(f"acknowledges {relative}, sent {self._highest}")
        self._progress(relative, window << self._scale, now)
        self._take(packet, start, view.end, (sequence - self._irs - 1) & 0xFFFFFFFF, flags, send)
        self._transmit(now, send)

    def _progress(self, acknowledged: int, window: int, now: float) -> None:
        if acknowledged >= self._una and self._edge is not None:
            self._edge = max(self._edge, acknowledged + window)  # an older one may come later
        if acknowledged > self._una:
            self._una = acknowledged
            self._next = max(self._next, acknowledged)
            self._deadline = now + _RTO

    def _take(
        self, packet: bytes, start: int, end: int, position: int, flags: int, send: Callable[[Packet], None]
    ) -> None:
        size = end - start
        if size == 0 and position != self._received + self.eof:  # a probe from just below
            self._acknowledge(send)
            return
        if size and position + size > self._edge_told:
            raise Misbehaviour(f"data up to {position + size}, the window ends at {self._edge_told}")
        if position <= self._received < position + size and not self.eof:
            fresh = packet[start + self._received - position : end]
            self.got += fresh
            self._received += len(fresh)
            self._unread += len(fresh)
        if flags & FIN and position + size == self._received and not self.eof:
            self.eof = True
        if size or flags & FIN:
            self._acknowledge(send)

    def _window(self) -> int:
        """Never shrinks what was promised; in units of the scale."""
        room = self._buffer - self._unread
        room = max(room, self._edge_told - self._received)
        units = min((room + (1 << _SCALE) - 1) >> _SCALE, 65535)
        self._edge_told = self._received + (units << _SCALE)
        return units

    def _acknowledgement(self) -> int:
        assert self._irs is not None
        return self._irs + 1 + self._received + self.eof

    def _acknowledge(self, send: Callable[[Packet], None]) -> None:
        acknowledgement = self._acknowledgement()
        send([self._builder.build(self._iss + self._next, acknowledgement, ACK, self._window(), 0)])

    def _transmit(self, now: float, send: Callable[[Packet], None]) -> None:
        """Everything that the window allows, in pieces of random size; the end behind the last byte."""
        total = len(self._data) + 1
        while self._edge is not None and self._next < total + 1:
            offset = self._next - 1
            size = min(len(self._data) - offset, self._edge - self._next, self._random.choice([1, 700, 1400, 20000]))
            fin = size >= 0 and self._next + max(size, 0) == total and self._edge >= total
            size = max(size, 0)
            if size == 0 and not fin:
                break
            payload = self._data[offset : offset + size]
            flags = ACK | FIN if fin else ACK
            header = self._builder.build(self._iss + self._next, self._acknowledgement(), flags, self._window(), size)
            send([header, payload])
            self._next += size + fin
            self._highest = max(self._highest, self._next)
        if self._una < total + 1 and self._deadline is None:
            self._deadline = now + _RTO
