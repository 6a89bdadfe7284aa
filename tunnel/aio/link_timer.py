"""The one timer of a link."""

from __future__ import annotations

import asyncio

from tunnel.mux.link import Link


class LinkTimer:
    """Calls `link.on_timeout` when it is due, and only then."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._stopped = False

    def arm(self, at: float) -> None:
        """Be called at `at` (loop time), whatever was armed before."""
        if self._handle is not None:
            self._handle.cancel()
        if not self._stopped:
            self._handle = self._loop.call_at(at, self._fire)

    def rearm(self) -> None:
        """Ask the link anew."""
        at = self._link.next_timeout()
        if at is not None:
            self.arm(at)

    def stop(self) -> None:
        """Never fire again."""
        self._stopped = True
        if self._handle is not None:
            self._handle.cancel()

    def _fire(self) -> None:
        self._handle = None
        self._link.on_timeout()
        self.rearm()  # also when on_timeout armed something: other deadlines may come before it
