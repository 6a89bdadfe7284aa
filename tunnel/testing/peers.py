"""Owners of flows for tests: they say what they saw, and read as slowly as they are told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tunnel.endpoint import Broken, Endpoint, EndpointHandler, Refusal
from tunnel.mux.flow import Flow, FlowHandler
from tunnel.mux.queries import Query


class Recorder(FlowHandler):
    """Takes everything, consumes at once unless `stalled`, and sends what it is given as room comes."""

    def __init__(self, *, stalled: bool = False, close_after_eof: bool = True) -> None:
        self.endpoint: Endpoint | None = None
        self.received = bytearray()
        self.datagrams: list[bytes] = []
        self.opened = self.eof = False
        self.refusal: Refusal | None = None
        self.closed: list[Broken | None] = []
        self.stalled = stalled
        self.unconsumed = 0
        self._close_after_eof = close_after_eof
        self._to_send: deque[memoryview] = deque()
        self._end = False

    def write(self, data: bytes) -> None:
        """Send as soon as there is room."""
        if data:
            self._to_send.append(memoryview(data))
            self._flush()

    def end(self) -> None:
        """Send eof after everything written."""
        self._end = True
        self._flush()

    def read_on(self) -> None:
        """Stop stalling: consume what waits."""
        self.stalled = False
        count, self.unconsumed = self.unconsumed, 0
        if count and self.endpoint is not None:
            self.endpoint.consumed(count)

    @property
    def unsent(self) -> int:
        """Bytes written that the endpoint has not taken."""
        return sum(map(len, self._to_send))

    def on_opened(self) -> None:
        """The peer accepted."""
        assert not self.opened
        self.opened = True
        self._flush()

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        """The peer refused."""
        self.refusal = refusal

    def on_datagram(self, data: memoryview) -> None:
        """A datagram."""
        self.datagrams.append(bytes(data))

    def on_data(self, data: memoryview) -> None:
        """Bytes."""
        assert not self.eof
        assert not self.closed
        self.received += data
        if self.stalled:
            self.unconsumed += len(data)
        elif self.endpoint is not None:
            self.endpoint.consumed(len(data))

    def on_eof(self) -> None:
        """The peer's end."""
        assert not self.eof
        self.eof = True
        if self._close_after_eof:
            self.end()

    def on_writable(self) -> None:
        """Room."""
        self._flush()

    def on_closed(self, broken: Broken | None) -> None:
        """The last call."""
        assert not self.closed
        self.closed.append(broken)

    def _flush(self) -> None:
        endpoint = self.endpoint
        if endpoint is None:
            return
        while self._to_send:
            data = self._to_send[0]
            taken = endpoint.send(data)
            if taken < len(data):
                self._to_send[0] = data[taken:]
                return
            self._to_send.popleft()
        if self._end:
            endpoint.send_eof()


class Listener:
    """An acceptor that hands each flow to a new `Recorder` and accepts it, unless told otherwise; echoes queries."""

    def __init__(self, make: Callable[[bytes], Recorder] | None = None) -> None:
        self.flows: dict[int, tuple[Flow, Recorder]] = {}
        self.bodies: list[bytes] = []
        self.answer: Callable[[Flow], None] = lambda flow: flow.accept()
        self._make = make or (lambda body: Recorder())

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        """A flow."""
        recorder = self._make(body)
        recorder.endpoint = flow
        self.flows[flow.id] = (flow, recorder)
        self.bodies.append(body)
        flow.handler = recorder
        self.answer(flow)
        return recorder

    def on_query(self, query: Query) -> None:
        """A query."""
        query.reply(b"re:" + query.message)
