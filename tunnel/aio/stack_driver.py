"""Drives a stack: packets from the device in, packets out, one timer (asyncio or uvloop).

A wake-up of the descriptor reads a bounded number of packets, so that one busy connection leaves room for everything
else in the loop. What the stack has to say is written in the same wake-up; only what is caused from outside and has
time waits for the end of the loop's round, where one flush serves all.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from tunnel.stack.stack import Stack
from tunnel.stack.vocabulary import Packet
from tunnel.tun import Device

_PACKETS = 64
_BYTES = 512 * 1024
"""Read in one wake-up, whichever comes first: about half a millisecond of the stack's own time."""


class StackDriver:
    """Runs `stack` over `device` between `start` and `stop`."""

    def __init__(
        self,
        device: Device,
        stack: Stack,
        *,
        on_lost: Callable[[OSError], None] | None = None,
    ) -> None:
        """`on_lost`: the device is gone (deleted, taken down for good); the driver has stopped. Called once."""
        self._device = device
        self._stack = stack
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent: deque[Packet] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf  # uvloop may answer call_at with a handle that does not know its time
        self._flush_soon: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin; call in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._stack.on_wake(self._woken)
        self._loop.add_reader(self._device.fileno(), self._readable)

    def stop(self) -> None:
        """Reset all connections, write what that takes, and let go of the loop. The device stays open. Idempotent."""
        if self._loop is None:
            return
        self._stack.reset_all()
        try:
            while self._stack.ready and not self._unsent:
                self._write(self._stack.flush(self._loop.time()))
        except OSError:
            pass  # the device is gone, and with it whoever would hear of it
        self._detach()

    def _detach(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        self._stack.on_wake(None)
        loop.remove_reader(self._device.fileno())
        if self._unsent:
            loop.remove_writer(self._device.fileno())
            self._unsent.clear()
        for handle in (self._timer, self._flush_soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush_soon = None
        self._timer_at = math.inf

    def _lost(self, error: OSError) -> None:
        self._detach()
        if self._on_lost is not None:
            self._on_lost(error)

    def _readable(self) -> None:
        loop = self._loop
        if loop is None:
            return
        read, receive = self._device.read, self._stack.receive
        now = loop.time()
        size = 0
        try:
            for _ in range(_PACKETS):
                try:
                    packet = read()
                except OSError as error:
                    self._lost(error)
                    return
                if packet is None:
                    break
                receive(packet, now)
                size += len(packet)
                if size > _BYTES:
                    break
        finally:
            self._flush(now)  # also when an owner failed: the others get their answers

    def _woken(self, urgent: bool) -> None:
        loop = self._loop
        if loop is None or self._unsent:
            return
        if urgent:
            self._flush(loop.time())
        elif self._flush_soon is None:
            self._flush_soon = loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_soon = None
        if self._loop is not None:
            self._flush(self._loop.time())

    def _flush(self, now: float) -> None:
        """Write what the stack has, unless the device is full; then set the timer."""
        loop, stack = self._loop, self._stack
        if loop is None:
            return
        if not self._unsent:
            try:
                self._write(stack.flush(now))
            except OSError as error:
                self._lost(error)
                return
            if stack.ready and not self._unsent and self._flush_soon is None:
                self._flush_soon = loop.call_soon(self._flush_now)
        at = stack.next_timeout()
        if at is not None and at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = loop.call_at(at, self._timeout)

    def _write(self, packets: list[Packet]) -> None:
        write = self._device.write
        for index, packet in enumerate(packets):
            if not write(packet):
                self._unsent.extend(packets[index:])
                if self._loop is not None:
                    # What comes in causes answers, which would only wait in memory: the kernel's own queue is bounded.
                    self._loop.remove_reader(self._device.fileno())
                    self._loop.add_writer(self._device.fileno(), self._writable)
                return

    def _writable(self) -> None:
        loop, unsent = self._loop, self._unsent
        if loop is None:
            return
        try:
            while unsent:
                if not self._device.write(unsent[0]):
                    return
                unsent.popleft()
        except OSError as error:
            self._lost(error)
            return
        loop.remove_writer(self._device.fileno())
        loop.add_reader(self._device.fileno(), self._readable)
        self._flush(loop.time())

    def _timeout(self) -> None:
        loop = self._loop
        self._timer = None
        self._timer_at = math.inf
        if loop is not None:
            now = loop.time()
            try:
                self._stack.on_timeout(now)
            finally:
                self._flush(now)
