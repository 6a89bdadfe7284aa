"""The answering side of links: which sessions have links here, on which carriers, and for how long without one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from weakref import WeakValueDictionary

from tunnel.aio.byte_stream import ByteStream, StreamError
from tunnel.aio.carrier import Carrier, say_go_away
from tunnel.aio.link_timer import LinkTimer
from tunnel.aio.logging import Context, RateLimited
from tunnel.endpoint import Broken
from tunnel.mux import handshake
from tunnel.mux.errors import GoAway, PeerLeft, RemoteProtocolError
from tunnel.mux.handshake import Limits
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link, Role
from tunnel.mux.registry import Bounds, Registry
from tunnel.mux.window import Budget
from tunnel.version import VERSION

HELLO_TIMEOUT = 5.0
"""Seconds a client has for its hello."""

_log = logging.getLogger(__name__)


class LinkServer:
    """All links of this process.

    `make_acceptor(session, link)` is called once for each new link. `linger`: seconds a detached link keeps its flows.
    `on_attached(session, link, attached)`: a link got its interactive carrier, or lost the last one. `budget`: of all
    flows; when `fair`, no session gets more of it than it leaves to the others (`Budget.part`).
    """

    def __init__(
        self,
        *,
        make_acceptor: Callable[[str, Link], Acceptor],
        name: str,
        on_attached: Callable[[str, Link, bool], None] | None = None,
        budget: Budget | None = None,
        fair: bool = False,
        linger: float = 3600.0,
        flows: int = 4096,
        pending: int = 1024,
        bounds: Bounds | None = None,
    ) -> None:
        self.make_acceptor = make_acceptor
        self.on_attached = on_attached
        self.budget = budget or Budget()
        self._fair = fair
        self._parts: WeakValueDictionary[str, Budget] = WeakValueDictionary()
        self.limits = Limits(flows, pending, linger)
        self.log = Context(_log, f"links={name}")
        self._registry = Registry(self._make_link, bounds or Bounds())
        self._entries: dict[Link, _Entry] = {}

    async def serve(self, stream: ByteStream, session: str) -> None:
        """Run one carrier of a session whose certificate was verified, until it ends. Cancelling it ends it."""
        try:
            message = await asyncio.wait_for(stream.read(), HELLO_TIMEOUT)
            if message is None:
                return
            hello = handshake.parse(message)
            link, answer, replaced = self._registry.greet(hello, session)
        except (StreamError, PeerLeft, TimeoutError):
            return  # there was no hello, so there is nobody to tell
        except RemoteProtocolError as error:
            self.log.info("session %s: %s", session, error)
            await say_go_away(stream, error.code, str(error))
            return
        for older in replaced:
            self._end(older, Broken.LINK_LOST, None, "")
        entry = self._entries[link]
        carrier = entry.replace(hello.lane, hello.generation, stream)
        if hello.lane is Lane.INTERACTIVE:
            self._attached(entry, True)
        try:
            await stream.write(answer)
            await carrier.run()
        except PeerLeft as left:
            self.log.debug("session %s left: %s", session, left)
            if left.permanent:
                self._end(link, Broken.ENDED, None, "")
        except StreamError as error:
            self.log.debug("session %s: %s carrier ended: %s", session, hello.lane.name.lower(), error)
        except RemoteProtocolError as error:
            self.log.warning("session %s broke the protocol: %s", session, error)
        finally:
            self._carrier_ended(entry, carrier)

    def links(self, session: str) -> list[Link]:
        """The session's links, those with a carrier first, the newest of them first."""
        return self._registry.links(session)

    def link(self, session: str) -> Link | None:
        """The link on which to reach the session; None when it has none."""
        return next(iter(self._registry.links(session)), None)

    def end_session(self, session: str) -> None:
        """The session is over: its flows end at once, its carriers with go-away."""
        for link in self._registry.links(session):
            self._end(link, Broken.ENDED, GoAway.ENDED, "the session has ended")

    def close(self) -> None:
        """The process is leaving: clients are told to dial again elsewhere."""
        for link in self._registry.links():
            self._end(link, Broken.LINK_LOST, GoAway.SHUTDOWN, "the server is shutting down")

    def expired(self, link: Link) -> None:
        """The link has been without a carrier for as long as it may."""
        if not link.attached:
            self._end(link, Broken.LINK_LOST, None, "")

    def budget_of(self, session: str) -> Budget:
        """What the flows of a session's links may hold, all together."""
        if not self._fair:
            return self.budget
        part = self._parts.get(session)
        if part is None:
            part = self._parts[session] = self.budget.part()
        return part

    def _make_link(self, session: str) -> Link:
        entry = _Entry(self, session)
        self._entries[entry.link] = entry
        return entry.link

    def _attached(self, entry: _Entry, attached: bool) -> None:
        if self.on_attached is not None and (attached or entry.attached):
            self.on_attached(entry.session, entry.link, attached)
        entry.attached = attached

    def _carrier_ended(self, entry: _Entry, carrier: Carrier) -> None:
        link = entry.link
        entry.drop(carrier)
        detached = link.detach(carrier.lane, carrier.generation)
        if link.ended is not None:
            self._end(link, link.ended, None, "")
        elif detached and carrier.lane is Lane.INTERACTIVE:
            entry.expire_after(min(link.limits.linger_seconds, link.peer_limits.linger_seconds))
            self._attached(entry, False)
            for excess in self._registry.excess():
                self._end(excess, Broken.LINK_LOST, None, "")

    def _end(self, link: Link, broken: Broken, code: GoAway | None, text: str) -> None:
        """End a link; nothing happens when that was done."""
        self._registry.remove(link)
        entry = self._entries.pop(link, None)
        if entry is None:
            return
        link.end(broken)
        entry.close(code, text)
        self._attached(entry, False)


class _Entry:
    """One link, its carriers and its timers; the link's shell."""

    def __init__(self, server: LinkServer, session: str) -> None:
        loop = asyncio.get_running_loop()
        self.session = session
        self.attached = False
        """What `on_attached` was told last."""
        self._server = server
        self._loop = loop
        self._faults = RateLimited(_log, loop.time)
        self._carriers: dict[Lane, Carrier] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self.link = Link(
            role=Role.SERVER,
            session=session,
            instance=os.urandom(handshake.INSTANCE_SIZE),
            acceptor=None,
            shell=self,
            clock=loop.time,
            budget=server.budget_of(session),
            limits=server.limits,
            software=VERSION,
        )
        self._timer = LinkTimer(self.link, loop)
        self.link.acceptor = server.make_acceptor(session, self.link)

    def replace(self, lane: Lane, generation: int, stream: ByteStream) -> Carrier:
        """A new carrier; the lane's older one ends."""
        older = self._carriers.get(lane)
        if older is not None:
            older.stop(GoAway.STALE, "a newer carrier is attached")
        carrier = self._carriers[lane] = Carrier(self.link, lane, generation, stream)
        if lane is Lane.INTERACTIVE and self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._timer.rearm()
        return carrier

    def drop(self, carrier: Carrier) -> None:
        """The carrier is gone."""
        if self._carriers.get(carrier.lane) is carrier:
            del self._carriers[carrier.lane]

    def expire_after(self, seconds: float) -> None:
        """End the link unless a carrier comes in time."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_later(seconds, self._server.expired, self.link)

    def close(self, code: GoAway | None, text: str) -> None:
        """End all carriers, with go-away when there is a code; no timer fires any more."""
        for carrier in self._carriers.values():
            carrier.stop(code, text)
        self._timer.stop()
        if self._expiry is not None:
            self._expiry.cancel()

    def on_ready(self, lane: Lane) -> None:
        """The lane has something to write."""
        carrier = self._carriers.get(lane)
        if carrier is not None:
            carrier.wake()

    def on_want(self, lane: Lane) -> None:
        """Only clients dial."""

    def on_suspect(self, lane: Lane) -> None:
        """The carrier has been silent for long: end it, and wait for the client."""
        carrier = self._carriers.get(lane)
        if carrier is not None:
            carrier.stop()

    def on_timer(self, at: float) -> None:
        """The link wants to be called at `at`."""
        self._timer.arm(at)

    def on_fault(self, error: Exception) -> None:
        """A flow's handler raised."""
        self._faults.log(logging.ERROR, "session %s: a flow's handler failed: %r", self.session, error)
        _log.debug("handler failed", exc_info=error)
