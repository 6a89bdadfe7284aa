"""Joining two byte streams so that what one receives the other sends, with back-pressure in both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tunnel import pieces
from tunnel.endpoint import Broken, Endpoint, EndpointHandler


class _Half(EndpointHandler):
    """Handles one endpoint's events by driving the other. What the other would not take waits here.

    It never holds more than the source's window: nothing is given back (`consumed`) before the sink took it.
    """

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self._waiting: pieces.Pieces = deque()
        self._eof = False
        self.source: Endpoint | None = None
        self.sink: Endpoint | None = None
        self.other: _Half | None = None

    def on_data(self, data: memoryview) -> None:
        source, sink = self.source, self.sink
        if source is None or sink is None or self._waiting:
            pieces.push(self._waiting, data)
            return
        taken = sink.send(data)
        if taken < len(data):
            pieces.push(self._waiting, data[taken:])
        if taken:
            source.consumed(taken)

    def on_eof(self) -> None:
        self._eof = True
        if not self._waiting and self.sink is not None:
            self.sink.send_eof()

    def on_writable(self) -> None:
        if self.other is not None:
            self.other.flush()

    def on_closed(self, broken: Broken | None) -> None:
        self._splice.closed(self, broken)

    def flush(self) -> None:
        """Send on what waits, as far as the sink takes it."""
        source, sink = self.source, self.sink
        if source is None or sink is None:
            return
        waiting, sent = self._waiting, 0
        while waiting:
            data = pieces.first(waiting)
            taken = sink.send(data)
            sent += taken
            if taken < len(data):
                waiting[0] = data[taken:]
                break
            waiting.popleft()
        if sent:
            source.consumed(sent)
        if self._eof and not waiting:
            sink.send_eof()

    def forget(self) -> None:
        """The end: hold nothing, as splice, halves and endpoints hold one another."""
        self._waiting = deque()
        self.source = self.sink = self.other = None


class Splice:
    """Two endpoints joined. Make it, give `left` and `right` out as handlers, then `join` the endpoints.

    `on_end(broken)` is called once, when both sides are closed or either one broke (the other is then reset).
    """

    def __init__(self, on_end: Callable[[Broken | None], None] | None = None) -> None:
        self._on_end = on_end
        self._left = _Half(self)
        self._right = _Half(self)
        self._left.other, self._right.other = self._right, self._left
        self._open = 2
        self._ended = False

    @property
    def left(self) -> EndpointHandler:
        """Handler for the left endpoint."""
        return self._left

    @property
    def right(self) -> EndpointHandler:
        """Handler for the right endpoint."""
        return self._right

    def join(self, left: Endpoint, right: Endpoint) -> None:
        """Couple them; bytes that arrived before this moment go on now."""
        self._left.source, self._left.sink = left, right
        self._right.source, self._right.sink = right, left
        self._left.flush()
        self._right.flush()

    def closed(self, half: _Half, broken: Broken | None) -> None:
        """One side is closed: in order (wait for the other), or broken (reset the other)."""
        if self._ended:
            return
        if broken is not None:
            other = half.sink
            self._finish(broken)
            if other is not None:
                other.reset()
            return
        self._open -= 1
        if self._open == 0:
            self._finish(None)

    def _finish(self, broken: Broken | None) -> None:
        self._ended = True
        self._left.forget()
        self._right.forget()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(broken)
