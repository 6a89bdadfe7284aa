"""Errors of the protocol. Those here are the peer's doing; a ValueError or RuntimeError is a bug on our side."""

from __future__ import annotations

import enum


class GoAway(enum.IntEnum):
    """Why a carrier or link ends. Part of the wire protocol (section 10)."""

    PROTOCOL = 1
    VERSION = 2
    SESSION = 3
    STALE = 4
    UNKNOWN_LINK = 5
    BUSY = 6
    ENDED = 7
    SHUTDOWN = 8


PERMANENT = frozenset({GoAway.VERSION, GoAway.SESSION, GoAway.ENDED})
"""Codes after which a client does not dial again."""


class RemoteProtocolError(Exception):
    """The peer sent what the protocol does not allow; the carrier must end with go-away `code`."""

    code = GoAway.PROTOCOL


class HelloRefused(RemoteProtocolError):
    """A hello that cannot be answered; `code` says why, and goes to the peer as go-away."""

    def __init__(self, code: GoAway, text: str) -> None:
        super().__init__(text)
        self.code = code


class LinkEnded(RemoteProtocolError):
    """The peer broke the protocol beyond one flow, so the whole link ends, not only the carrier."""


class PeerLeft(Exception):
    """The peer said go-away."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or "the peer ended the carrier")
        self.code = code
        self.text = text

    @property
    def permanent(self) -> bool:
        """Whether dialling again is pointless."""
        return self.code in PERMANENT
