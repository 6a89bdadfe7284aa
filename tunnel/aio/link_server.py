"""The answering side of links: which sessions have links here, on which carriers, and for how long without one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from tunnel.aio.byte_stream import ByteStream, StreamError
from tunnel.aio.carrier import Carrier, say_go_away
from tunnel.aio.link_timer import LinkTimer
from tunnel.aio.logging import Context, RateLimited
from tunnel.endpoint import Broken
from tunnel.mux import handshake
from tunnel.mux.errors import GoAway, HelloRefused, PeerLeft, RemoteProtocolError
from tunnel.mux.handshake import Hello, Limits
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link, Role
from tunnel.mux.window import Budget
from tunnel.version import VERSION

HELLO_TIMEOUT = 5.0
"""Seconds a client has for its hello."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """What detached links may hold, all sessions together; the longest detached goes first."""

    links: int = 256
    flows: int = 16384
    bytes: int = 256 << 20


class LinkServer:
    """All links of this process.

    `make_acceptor(session, link)` is called once for each new link. `linger`: seconds a detached link keeps its flows.
    `on_attached(session, link, attached)`: a link got its interactive carrier, or lost the last one.
    """

    def __init__(
        self,
        *,
        make_acceptor: Callable[[str, Link], Acceptor],
        name: str,
        on_attached: Callable[[str, Link, bool], None] | None = None,
        budget: Budget | None = None,
        linger: float = 3600.0,
        flows: int = 4096,
        pending: int = 1024,
        bounds: Bounds | None = None,
    ) -> None:
        self.make_acceptor = make_acceptor
        self.on_attached = on_attached
        self.budget = budget or Budget()
        self.limits = Limits(flows, pending, linger)
        self.log = Context(_log, f"links={name}")
        self._bounds = bounds or Bounds()
        self._links: dict[tuple[str, bytes], _Entry] = {}

    async def serve(self, stream: ByteStream, session: str) -> None:
        """Run one carrier of a session whose certificate was verified, until it ends. Cancelling it ends it."""
        try:
            entry, lane, generation, answer = await self._greet(stream, session)
        except HelloRefused as refused:
            await say_go_away(stream, refused.code, str(refused))
            return
        except (StreamError, PeerLeft, TimeoutError):
            return  # there was no hello, so there is nobody to tell
        except RemoteProtocolError as error:
            self.log.info("session %s: %s", session, error)
            await say_go_away(stream, error.code, str(error))
            return
        carrier = entry.replace(lane, generation, stream)
        if lane is Lane.INTERACTIVE:
            self._attached(entry, True)
        try:
            await stream.write(answer)
            await carrier.run()
        except (StreamError, PeerLeft) as error:
            self.log.debug("session %s: %s carrier ended: %s", session, lane.name.lower(), error)
        except RemoteProtocolError as error:
            self.log.warning("session %s broke the protocol: %s", session, error)
        finally:
            self._carrier_ended(entry, carrier)

    def links(self, session: str) -> list[Link]:
        """The session's links, those with a carrier first, the newest of them first."""
        mine = [entry.link for (owner, _), entry in self._links.items() if owner == session]
        mine.reverse()
        return sorted(mine, key=lambda link: not link.attached)

    def link(self, session: str) -> Link | None:
        """The link on which to reach the session; None when it has none."""
        return next(iter(self.links(session)), None)

    def end_session(self, session: str) -> None:
        """The session is over: its flows end at once, its carriers with go-away."""
        for (owner, _), entry in list(self._links.items()):
            if owner == session:
                self._end(entry, Broken.ENDED, GoAway.ENDED, "the session has ended")

    def close(self) -> None:
        """The process is leaving: clients are told to dial again elsewhere."""
        for entry in list(self._links.values()):
            self._end(entry, Broken.LINK_LOST, GoAway.SHUTDOWN, "the server is shutting down")

    async def _greet(self, stream: ByteStream, session: str) -> tuple[_Entry, Lane, int, bytes]:
        message = await asyncio.wait_for(stream.read(), HELLO_TIMEOUT)
        if message is None:
            raise StreamError("the client ended the stream before its hello")
        hello = handshake.parse(message)
        if hello.session != session:
            raise HelloRefused(GoAway.SESSION, "the certificate is for another session")
        handshake.choose_version(hello)
        entry = self._find(hello, session)
        return entry, hello.lane, hello.generation, entry.link.answer(hello)

    def _find(self, hello: Hello, session: str) -> _Entry:
        key = (session, hello.instance)
        entry = self._links.get(key)
        if entry is not None and hello.peer_instance in (b"", entry.link.instance):
            return entry
        if hello.lane is not Lane.INTERACTIVE:
            raise HelloRefused(GoAway.UNKNOWN_LINK, "the link is not known here")
        if entry is not None:
            self._end(entry, Broken.LINK_LOST, None, "")
        for (owner, _), other in list(self._links.items()):
            if owner == session and not other.link.attached:
                self._end(other, Broken.LINK_LOST, None, "")  # the session's process is a new one
        entry = self._links[key] = _Entry(self, session, hello.instance)
        return entry

    def _attached(self, entry: _Entry, attached: bool) -> None:
        if self.on_attached is not None:
            self.on_attached(entry.session, entry.link, attached)

    def _carrier_ended(self, entry: _Entry, carrier: Carrier) -> None:
        entry.drop(carrier)
        detached = entry.link.detach(carrier.lane, carrier.generation)
        if entry.link.ended is not None:
            self._forget(entry)
        elif detached and carrier.lane is Lane.INTERACTIVE:
            linger = min(entry.link.limits.linger_seconds, entry.link.peer_limits.linger_seconds)
            entry.expire_after(linger)
            self._attached(entry, False)
            self._bound()

    def expired(self, entry: _Entry) -> None:
        """The link has been without a carrier for as long as it may."""
        if not entry.link.attached:
            self._end(entry, Broken.LINK_LOST, None, "")

    def _end(self, entry: _Entry, broken: Broken, code: GoAway | None, text: str) -> None:
        attached = entry.link.attached
        self._forget(entry)
        entry.link.end(broken)
        entry.stop(code, text)
        if attached:
            self._attached(entry, False)

    def _forget(self, entry: _Entry) -> None:
        entry.close()
        key = (entry.session, entry.client)
        if self._links.get(key) is entry:
            del self._links[key]

    def _bound(self) -> None:
        """End the longest detached links until the others fit the bounds."""
        detached = [entry for entry in self._links.values() if not entry.link.attached]
        detached.sort(key=lambda entry: entry.link.detached_at or 0.0)
        flows = sum(len(entry.link.flows) for entry in detached)
        held = sum(entry.link.held for entry in detached)
        while detached and (
            len(detached) > self._bounds.links or flows > self._bounds.flows or held > self._bounds.bytes
        ):
            entry = detached.pop(0)
            flows -= len(entry.link.flows)
            held -= entry.link.held
            self._end(entry, Broken.LINK_LOST, None, "")


class _Entry:
    """One link, its carriers and its timers; the link's shell."""

    def __init__(self, server: LinkServer, session: str, client: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.session = session
        self.client = client
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
            budget=server.budget,
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
        self._expiry = self._loop.call_later(seconds, self._server.expired, self)

    def stop(self, code: GoAway | None, text: str) -> None:
        """End all carriers."""
        for carrier in self._carriers.values():
            carrier.stop(code, text)

    def close(self) -> None:
        """No timer fires any more."""
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
