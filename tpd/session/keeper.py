"""Keeps a connection in a session: whenever one ends, another takes its place, but never in a hurry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tpd.session.errors import SessionError
from tpd.session.kube.session_object import SessionVanished
from tunnel.aio.backoff import Backoff
from tunnel.aio.link_client import LinkRefused
from tunnel.mux.errors import GoAway

log = logging.getLogger(__name__)

LEAST_PAUSE, MOST_PAUSE = 0.1, 5.0
"""Seconds between two sessions; each is an object in the cluster and a certificate."""
LONG_LIFE = 30.0
"""Seconds; a session that lived longer was a good one, and its successor is made at once."""
UPDATE_PAUSE = 60.0
"""Seconds between attempts that can succeed only after somebody has installed another release."""


@dataclass(frozen=True)
class Trouble:
    """Why there is no session. `hopeless`: trying again at once does not help; somebody has to do something."""

    text: str
    hopeless: bool = False
    pause: float = 0.0
    """Seconds until the next attempt, where growing pauses are too short."""


def trouble_of(error: Exception) -> Trouble:
    """Pure. What an end of a session, or a failure to make one, means."""
    match error:
        case SessionError():
            return Trouble(error.text, hopeless=not error.retryable)
        case LinkRefused(code=GoAway.VERSION):
            return Trouble(
                f"{error}; update the older side: tpctl, or the traffic-manager with: tpctl helm upgrade",
                hopeless=True,
                pause=UPDATE_PAUSE,
            )
        case SessionVanished() | LinkRefused():
            return Trouble(f"the session has ended: {error}")
        case _:
            return Trouble(f"a bug in tpctl ended the session ({error!r}); the log says more")


class Live(Protocol):
    """A session with its link."""

    async def run(self) -> None:
        """Until the session ends; raises why."""


Session = TypeVar("Session", bound=Live)


class Keeper(Generic[Session]):
    """`make()` a session, `end(session)` what is left of one; `tell(trouble)` before each new attempt."""

    def __init__(
        self,
        *,
        make: Callable[[], Awaitable[Session]],
        end: Callable[[Session], Awaitable[None]],
        tell: Callable[[Trouble], None],
        random: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._make = make
        self._end = end
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(LEAST_PAUSE, MOST_PAUSE, random)

    async def run(self, first: Session) -> None:
        """Until cancelled."""
        clock = self._clock
        session: Session | None = first
        while True:
            begun = clock()
            try:
                if session is None:
                    session = await self._make()
                    begun = clock()
                await session.run()
                trouble = Trouble("the session has ended")
            except Exception as error:  # whatever it was, the laptop's connection goes on
                trouble = trouble_of(error)
                log.warning("%s", trouble.text)
                log.debug("the session ended", exc_info=error)
            if session is not None and clock() - begun > LONG_LIFE:
                self._backoff.reset()
            self._tell(trouble)
            if session is not None:
                await self._take_back(session)
                session = None
            await self._sleep(trouble.pause or self._backoff.next())

    async def _take_back(self, session: Session) -> None:
        try:
            await self._end(session)
        except Exception:  # what is left in the cluster, leases end
            log.exception("ending a session failed")
