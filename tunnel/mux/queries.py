"""Raw DNS messages across the link: asked by either side, answered once, bounded in number and time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tunnel.mux import frames
from tunnel.mux.frames import Buffer, Type

TIMEOUT = 5.0
"""Seconds until a query counts as unanswered."""
MOST = 1024
"""Queries of ours under way, and of the peer's not yet answered; more are answered with nothing at once."""
MOST_BYTES = 1 << 20
"""Bytes of questions and answers that wait for the lane; answers beyond it are sent as none."""


class Query:
    """A query the peer asks."""

    __slots__ = ("_queries", "_subject", "message")

    def __init__(self, queries: Queries, subject: int, message: bytes) -> None:
        self._queries = queries
        self._subject: int | None = subject
        self.message = message
        """The raw DNS message."""

    def reply(self, message: bytes) -> None:
        """Answer with a raw DNS message (empty: no answer). Only the first call counts."""
        subject, self._subject = self._subject, None
        if subject is not None:
            self._queries.answer(subject, message)


class Queries:
    """Both directions' queries of one link."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._last = 0
        self._asked: dict[int, tuple[float, Callable[[bytes | None], None]]] = {}
        self._frames: deque[bytes] = deque()
        self._unanswered = 0
        self.held = 0
        """Bytes that wait for the lane."""

    def __bool__(self) -> bool:
        return bool(self._frames)

    @property
    def _full(self) -> bool:
        """Whether the peer takes too little of what it is asked and answered already."""
        return len(self._frames) >= MOST or self.held >= MOST_BYTES

    def ask(self, message: bytes, on_reply: Callable[[bytes | None], None], now: float) -> None:
        """Send a query; `on_reply` gets the answer, or None when none came."""
        if len(self._asked) >= MOST or len(message) > 65535 or self._full:
            on_reply(None)
            return
        self._last += 1
        self._asked[self._last] = (now + TIMEOUT, on_reply)
        self._queue(frames.frame(Type.QUERY, self._last, 0, message))

    def answer(self, subject: int, message: bytes) -> None:
        """Send the answer to the peer's query."""
        self._unanswered -= 1
        if self.held + len(message) > MOST_BYTES:
            message = b""
        self._queue(frames.frame(Type.REPLY, subject, 0, message))

    def received_query(self, subject: int, message: bytes) -> Query | None:
        """The query to hand to the acceptor; None when there are too many. It is answered with nothing then, or not at
        all when the peer asks without taking the answers."""
        if self._full:
            return None
        self._unanswered += 1
        query = Query(self, subject, message)
        if self._unanswered <= MOST:
            return query
        query.reply(b"")
        return None

    def received_reply(self, subject: int, message: bytes) -> None:
        """The peer answered; an unknown id is a query that timed out."""
        asked = self._asked.pop(subject, None)
        if asked is not None:
            asked[1](message or None)

    def write(self, parts: list[Buffer], room: int) -> int:
        """Append frames up to about `room` bytes, at least one; return their length."""
        size = 0
        while self._frames and (not size or size + len(self._frames[0]) <= room):
            size += len(self._frames[0])
            parts.append(self._frames.popleft())
        self.held -= size
        return size

    def deadline(self) -> float | None:
        """When the oldest query times out. Timeouts are equal, so the first asked is the first to go."""
        for when, _ in self._asked.values():
            return when
        return None

    def expire(self, now: float) -> None:
        """Give up what is overdue."""
        while self._asked:
            subject = next(iter(self._asked))
            when, on_reply = self._asked[subject]
            if when > now:
                return
            del self._asked[subject]
            on_reply(None)

    def drop(self) -> None:
        """The link lost its other end: nothing asked will be answered, nothing answered is awaited."""
        asked, self._asked = self._asked, {}
        self._frames.clear()
        self._unanswered = self.held = 0
        for _, on_reply in asked.values():
            on_reply(None)

    def _queue(self, frame: bytes) -> None:
        self._frames.append(frame)
        self.held += len(frame)
        self._wake()
