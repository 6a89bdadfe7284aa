"""What the manager's parts share while it runs: the sessions that live, the agents that attend, what is wished for.

Written by the controllers (`manager.kube`), read by the servers. All in one event loop; nothing here waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from manager.state.model import Session, Target
from tunnel.proto import manager_pb2


class LiveSessions:
    """Sessions that may be served now, by uid."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._updated = asyncio.Event()
        self.on_end: list[Callable[[str], None]] = []
        """Called with the uid of each session that ended."""

    def __getitem__(self, uid: str) -> Session | None:
        return self._sessions.get(uid)

    def all(self) -> Mapping[str, Session]:
        """All of them."""
        return self._sessions

    def update(self, sessions: Mapping[str, Session]) -> None:
        """These live and no others."""
        ended = self._sessions.keys() - sessions.keys()
        self._sessions = dict(sessions)
        updated, self._updated = self._updated, asyncio.Event()
        updated.set()
        for uid in ended:
            for event in self._streams.pop(uid, ()):
                event.set()
            for callback in self.on_end:
                callback(uid)

    async def await_live(self, uid: str, seconds: float) -> Session | None:
        """The session, waiting up to `seconds` for it: a laptop may see its certificate in the cluster, and call, a
        moment before the manager has the answer to its own writing of it. None when it does not live by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while uid not in self._sessions:
                    await self._updated.wait()
        return self._sessions.get(uid)

    @contextmanager
    def stream(self, uid: str) -> Iterator[asyncio.Event]:
        """For as long as a stream of this session is served; the event is set when the session ends."""
        event = asyncio.Event()
        if uid in self._sessions:
            self._streams.setdefault(uid, set()).add(event)
        else:
            event.set()
        try:
            yield event
        finally:
            streams = self._streams.get(uid)
            if streams is not None:
                streams.discard(event)
                if not streams:
                    del self._streams[uid]


@dataclass(slots=True)
class Attendance:
    """One agent whose Attend stream is open."""

    pod_uid: str
    pod_name: str
    namespace: str
    address: str
    """As the agent reports it; the kubelet tells the API server a little later."""
    port: int
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    grants: manager_pb2.AgentGrants | None = None
    """What it may serve; None until that is known, which is not the same as nothing."""

    def offer(self, grants: manager_pb2.AgentGrants) -> None:
        """Tell the agent, if it is news."""
        if self.grants != grants:
            self.grants = grants
            self.changed.set()


class Agents:
    """The agents that attend, by pod uid."""

    def __init__(self) -> None:
        self._attending: dict[str, Attendance] = {}
        self.on_change: list[Callable[[], None]] = []

    def __getitem__(self, pod_uid: str) -> Attendance | None:
        return self._attending.get(pod_uid)

    def uids(self) -> frozenset[str]:
        """Pods whose agent attends."""
        return frozenset(self._attending)

    @contextmanager
    def attend(self, attendance: Attendance) -> Iterator[None]:
        """For as long as the agent's stream is open. A second stream of the same pod takes the place of the first."""
        self._attending[attendance.pod_uid] = attendance
        self._tell()
        try:
            yield
        finally:
            if self._attending.get(attendance.pod_uid) is attendance:
                del self._attending[attendance.pod_uid]
                self._tell()

    def _tell(self) -> None:
        for callback in self.on_change:
            callback()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be replaced in each pod of a workload."""

    containers: frozenset[str]
    ports: frozenset[int]


class Wishes:
    """What the webhook gives to new pods. `None` until the recorded acceptances are known."""

    def __init__(self) -> None:
        self._wanted: Mapping[Target, Wanted] | None = None

    @property
    def known(self) -> bool:
        """Whether the recorded acceptances have been read."""
        return self._wanted is not None

    def update(self, wanted: Mapping[Target, Wanted]) -> None:
        """These and no others."""
        self._wanted = dict(wanted)

    def namespaces(self) -> frozenset[str]:
        """Where anything is wished for."""
        return frozenset(target.namespace for target in self._wanted or ())

    def of(self, target: Target) -> Wanted | None:
        """For this workload."""
        return (self._wanted or {}).get(target)


class Wakeup:
    """A level-triggered reminder: any number of `set`s wake one waiter once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self, *_: object) -> None:
        """There is something to look at."""
        self._event.set()

    async def wait(self, timeout: float | None) -> None:
        """Return when there is, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
