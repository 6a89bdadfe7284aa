"""When a carrier deserves a ping, suspicion, or its end (docs/protocol.md, section 8)."""

from __future__ import annotations

import enum

SUSPECT_AFTER = 2.0
"""Seconds without life while something is outstanding."""
SERVER_PATIENCE = 10.0
"""Seconds after which a server, which cannot dial, ends the carrier."""
CLIENT_IDLE = 15.0
SERVER_IDLE = 20.0
"""Seconds without receipt before a ping."""


class Due(enum.Enum):
    """What `check` asks for."""

    NOTHING = enum.auto()
    PING = enum.auto()
    SUSPICION = enum.auto()


class Watchdog:
    """Watches one carrier. The lane tells it what happens; it tells when to look again, and what is due then."""

    __slots__ = ("_idle", "_life", "_patience", "_pinged_at", "_since", "suspect")

    def __init__(self, now: float, *, idle: float, patience: float = SUSPECT_AFTER) -> None:
        self._idle = idle
        self._patience = patience
        self._life = now
        self._since: float | None = None
        self._pinged_at: float | None = None
        self.suspect = False

    def life(self, now: float, outstanding: bool) -> None:
        """Something arrived, or an acknowledgement made progress; `outstanding`: batches are unacknowledged."""
        self._life = now
        self._pinged_at = None
        self._since = now if outstanding else None
        self.suspect = False

    def sent(self, now: float) -> None:
        """A batch went out that the peer must acknowledge."""
        if self._since is None:
            self._since = now

    def pinged(self, now: float) -> None:
        """A ping went out that the peer must answer."""
        self._pinged_at = now
        self.sent(now)

    def deadline(self) -> float | None:
        """When `check` may have something to say; None: nothing before something happens."""
        if self.suspect:
            return None
        ping = self._life + self._idle if self._pinged_at is None else None
        dead = max(self._since, self._life) + self._patience if self._since is not None else None
        if ping is None or (dead is not None and dead < ping):
            return dead
        return ping

    def check(self, now: float) -> Due:
        """What is due; suspicion is said once, until there is life again."""
        if self.suspect:
            return Due.NOTHING
        if self._since is not None and now >= max(self._since, self._life) + self._patience:
            self.suspect = True
            return Due.SUSPICION
        if self._pinged_at is None and now >= self._life + self._idle:
            return Due.PING
        return Due.NOTHING
