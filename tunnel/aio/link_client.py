"""The dialling side of a link: keeps its lanes on live carriers for as long as it runs."""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
import os
import random
from collections.abc import Awaitable, Callable

from tunnel.aio.backoff import Backoff
from tunnel.aio.byte_stream import ByteStream, StreamError, StreamRefused
from tunnel.aio.carrier import Carrier
from tunnel.aio.link_timer import LinkTimer
from tunnel.aio.logging import Context, RateLimited
from tunnel.aio.tasks import Tasks
from tunnel.endpoint import Broken
from tunnel.mux import handshake
from tunnel.mux.errors import GoAway, PeerLeft, RemoteProtocolError
from tunnel.mux.handshake import Hello, Limits
from tunnel.mux.lane import Lane
from tunnel.mux.link import Acceptor, Link, Role
from tunnel.mux.window import Budget
from tunnel.version import VERSION

ATTEMPT_TIMEOUT = 3.0
"""Seconds for one attempt: dialling, and the answer to hello."""
PATIENT_TIMEOUT = 6.0
"""The same for every third attempt, so that a line or a laptop that is always slower connects all the same."""
CLOSE_TIMEOUT = 2.0
"""Seconds a replaced byte stream gets to close."""
LEAVE_TIMEOUT = 0.5
"""Seconds to tell the server that this side ends."""
BACKOFF_LEAST, BACKOFF_MOST = 0.05, 2.0
"""Seconds between attempts."""
SHORT_LIFE = 5.0
"""Seconds; a carrier that lived longer was a good one, and its successor is dialled at once."""
BULK_IDLE = 60.0
"""Seconds without batches after which the bulk carrier is closed."""
TIDY_INTERVAL = 5.0
"""Seconds between looks at what may be closed."""

_log = logging.getLogger(__name__)


class LinkState(enum.Enum):
    """How the link is doing. RECONNECTING: its interactive carrier is gone, or silent."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"


class LinkRefused(Exception):
    """The server will not have this session, now or later; the text says why, `code` too (GoAway; 0: none)."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class LinkClient:
    """Keeps `link` alive while `run` runs.

    `dial(lane)` makes a new byte stream; it may be called while an older one of the lane still works, and raises
    OSError (StreamError included) when trying again may help, LinkRefused when not. `linger`: seconds this side keeps
    flows without a carrier.
    """

    def __init__(
        self,
        *,
        dial: Callable[[Lane], Awaitable[ByteStream]],
        session: str,
        acceptor: Acceptor,
        name: str,
        on_state: Callable[[LinkState], None] | None = None,
        budget: Budget | None = None,
        linger: float = 3600.0,
        flows: int = 4096,
        pending: int = 1024,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._dial = dial
        self._on_state = on_state
        self._log = Context(_log, f"link={name}")
        self._faults = RateLimited(_log, loop.time)
        self._tasks = Tasks(f"link.{name}")
        self.state = LinkState.CONNECTING
        self.trouble = ""
        """Why there is no interactive carrier, as far as that is known."""
        self.link = Link(
            role=Role.CLIENT,
            session=session,
            instance=os.urandom(handshake.INSTANCE_SIZE),
            acceptor=acceptor,
            shell=self,
            clock=loop.time,
            budget=budget or Budget(),
            limits=Limits(flows, pending, linger),
            software=VERSION,
        )
        self._timer = LinkTimer(self.link, loop)
        self._carriers: dict[Lane, Carrier] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._needed = {lane: asyncio.Event() for lane in Lane}
        self._connected = asyncio.Event()
        self._outcome: asyncio.Future[None] = loop.create_future()
        self._clock = loop.time

    async def run(self) -> None:
        """Dial, keep alive, replace; until cancelled, or refused for good (LinkRefused). The link ends with it."""
        self._needed[Lane.INTERACTIVE].set()
        for lane in Lane:
            keeper = self._tasks.spawn(self._keep(lane), name=f"keep.{lane.name.lower()}")
            keeper.add_done_callback(self._keeper_done)
        self._tasks.spawn(self._tidy(), name="tidy")
        try:
            await self._outcome
        finally:
            self._timer.stop()
            self.link.end(Broken.ENDED)
            try:
                await self._leave()
            finally:
                await self._tasks.stop()

    async def connected(self) -> None:
        """Wait until the interactive lane's hello has been answered (again)."""
        await self._connected.wait()

    # LinkShell.

    def on_ready(self, lane: Lane) -> None:
        """The lane has something to write."""
        carrier = self._carriers.get(lane)
        if carrier is not None:
            carrier.wake()

    def on_want(self, lane: Lane) -> None:
        """The lane needs a carrier."""
        if lane not in self._carriers:
            self._needed[lane].set()

    def on_suspect(self, lane: Lane) -> None:
        """The lane's carrier is silent: dial another beside it."""
        self._log.info("%s carrier is silent, dialling another", lane.name.lower())
        self._needed[lane].set()
        if lane is Lane.INTERACTIVE:
            self._set_state(LinkState.RECONNECTING)

    def on_timer(self, at: float) -> None:
        """The link wants to be called at `at`."""
        self._timer.arm(at)

    def on_fault(self, error: Exception) -> None:
        """A flow's handler raised."""
        self._faults.log(logging.ERROR, "a flow's handler failed: %r", error)
        _log.debug("handler failed", exc_info=error)

    # Inside.

    def _keeper_done(self, keeper: asyncio.Task[None]) -> None:
        if not self._outcome.done() and not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._outcome.set_exception(error)

    def _note(self, lane: Lane, error: Exception) -> None:
        if lane is Lane.INTERACTIVE:
            self.trouble = "no answer in time" if isinstance(error, TimeoutError) else str(error) or repr(error)

    def _note_lost(self, carrier: Carrier, error: Exception) -> None:
        if self._carriers.get(carrier.lane) is carrier:
            self._note(carrier.lane, error)

    def _set_state(self, state: LinkState) -> None:
        if state is self.state:
            return
        if state is LinkState.CONNECTED:
            self._connected.set()
        else:
            self._connected.clear()
        self.state = state
        if self._on_state is not None:
            self._on_state(state)

    async def _leave(self) -> None:
        """Tell the server that nobody will come back to this link."""
        carriers = list(self._carriers.values())
        for carrier in carriers:
            carrier.stop(GoAway.ENDED, "the client is leaving")
        runs = [run for run in self._runs if not run.done()]
        if runs:
            await asyncio.wait(runs, timeout=LEAVE_TIMEOUT)

    async def _keep(self, lane: Lane) -> None:
        backoff = Backoff(BACKOFF_LEAST, BACKOFF_MOST, random.random)
        needed = self._needed[lane]
        tried_at = float("-inf")
        for attempt in itertools.count():
            await needed.wait()
            if self._clock() - tried_at < SHORT_LIFE:
                await asyncio.sleep(backoff.next())  # a carrier that does not last is as bad as none
            else:
                backoff.reset()
            if self.link.alive(lane):
                self._recovered(lane)
                continue
            if lane is Lane.BULK:
                await self.connected()
            try:
                await self._attempt(lane, PATIENT_TIMEOUT if attempt % 3 == 2 else ATTEMPT_TIMEOUT)
            except LinkRefused:
                raise
            except StreamRefused as error:
                raise LinkRefused(str(error)) from error
            except PeerLeft as left:
                if left.permanent:
                    raise LinkRefused(left.text, left.code) from left
                self._log.info("%s carrier refused: %s", lane.name.lower(), left)
                self._note(lane, left)
            except Exception as error:  # carriers are made of many libraries; whatever they raise, we try again
                self._log.info("no %s carrier: %s", lane.name.lower(), str(error) or type(error).__name__)
                self._log.debug("dialling failed", exc_info=error)
                self._note(lane, error)
            else:
                needed.clear()
            tried_at = self._clock()

    def _recovered(self, lane: Lane) -> None:
        """The carrier that was silent is heard again, and nothing took its place."""
        self._log.info("%s carrier is heard again", lane.name.lower())
        self._needed[lane].clear()
        self._timer.rearm()  # the link watches it again
        if lane is Lane.INTERACTIVE:
            self._set_state(LinkState.CONNECTED)

    async def _attempt(self, lane: Lane, timeout: float) -> None:
        stream: ByteStream | None = None
        try:
            async with asyncio.timeout(timeout):
                stream = await self._dial(lane)
                await stream.write(self.link.hello(lane))
                message = await stream.read()
                if message is None:
                    raise StreamError("the server ended the stream before its hello")
                answer = handshake.parse(message)
                handshake.choose_version(answer)
                if answer.lane is not lane:
                    raise RemoteProtocolError("the answer is for the other lane")
                self._adopt(answer, stream)
                stream = None
        except asyncio.CancelledError:
            if stream is not None:
                await _close(stream)
            raise
        except BaseException:
            if stream is not None:
                self._tasks.spawn(_close(stream), name=f"close.{lane.name.lower()}")
            raise

    def _adopt(self, answer: Hello, stream: ByteStream) -> None:
        """The hello is answered: attach, and fence what was there before."""
        lane = answer.lane
        carrier = Carrier(self.link, lane, answer.generation, stream)
        older = self._carriers.get(lane)
        self._carriers[lane] = carrier
        try:
            self.link.attach(answer)
        except RemoteProtocolError:
            if older is not None:
                self._carriers[lane] = older
            else:
                del self._carriers[lane]
            raise
        if older is not None:
            older.stop()
        run = self._tasks.spawn(self._run_carrier(carrier, stream), name=f"carrier.{lane.name.lower()}")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        for other, kept in list(self._carriers.items()):
            if self.link.lanes[other].attached != kept.generation:
                kept.stop()  # the server is a new one, so this carrier leads to nobody
        self._timer.rearm()
        if lane is Lane.INTERACTIVE:
            self.trouble = ""
            self._log.info("connected")
            self._set_state(LinkState.CONNECTED)

    async def _run_carrier(self, carrier: Carrier, stream: ByteStream) -> None:
        lane = carrier.lane
        try:
            await carrier.run()
        except PeerLeft as left:
            self._log.info("the server ended the %s carrier: %s", lane.name.lower(), left)
            if left.permanent and not self._outcome.done():
                self._outcome.set_exception(LinkRefused(left.text, left.code))
            self._note_lost(carrier, left)
        except RemoteProtocolError as error:
            self._log.warning("the server broke the protocol: %s", error)
            self._note_lost(carrier, error)
            if self.link.ended is not None and not self._outcome.done():
                self._renew()
        except StreamError as error:
            self._log.info("%s carrier lost: %s", lane.name.lower(), error)
            self._note_lost(carrier, error)
        finally:
            if self._carriers.get(lane) is carrier:
                del self._carriers[lane]
            if self.link.detach(lane, carrier.generation) and lane is Lane.INTERACTIVE:
                self._needed[lane].set()
                self._set_state(LinkState.RECONNECTING)
            await _close(stream)

    def _renew(self) -> None:
        """The link cannot go on: another one takes its place."""
        self.link.renew(os.urandom(handshake.INSTANCE_SIZE))
        for carrier in self._carriers.values():
            carrier.stop()
        self._needed[Lane.INTERACTIVE].set()
        self._set_state(LinkState.RECONNECTING)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_INTERVAL)
            bulk = self._carriers.get(Lane.BULK)
            if bulk is not None and self.link.bulk_is_idle(BULK_IDLE):
                self.link.detach(Lane.BULK, bulk.generation)
                bulk.stop()
            linger = min(self.link.limits.linger_seconds, self.link.peer_limits.linger_seconds)
            lost_at = self.link.detached_at
            if lost_at is not None and self._clock() - lost_at > linger and self.link.peer_instance:
                self._log.warning("no carrier for %.0f s: open flows are lost", linger)
                self._renew()


async def _close(stream: ByteStream) -> None:
    try:
        await asyncio.wait_for(stream.close(), CLOSE_TIMEOUT)
    except TimeoutError:
        _log.warning("a carrier did not close within %.0f s", CLOSE_TIMEOUT)
