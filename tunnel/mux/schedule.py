"""Filling a batch at the moment a carrier can take it: control first, then deficit round robin (section 7)."""

from __future__ import annotations

from collections import OrderedDict

from tunnel.mux.flow import Flow, FlowKind
from tunnel.mux.frames import HEADER_SIZE, Buffer

LEAST_DATA = 512
"""Bytes; a batch with less room left goes out rather than with a sliver of the next flow."""


class Scheduler:
    """Which flows of one lane have something to say, and in which order they say it."""

    __slots__ = ("_quantum", "control", "data")

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        # In order of turn, and quick to take any flow out of: a flow that ends must not wait here for a carrier.
        self.control: OrderedDict[Flow, None] = OrderedDict()
        self.data: OrderedDict[Flow, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self.control or self.data)

    def add_control(self, flow: Flow) -> None:
        """`flow` has control to write."""
        flow.control_listed = True
        self.control[flow] = None

    def add_data(self, flow: Flow) -> None:
        """`flow` has data, datagrams or eof to write."""
        flow.data_listed = True
        self.data[flow] = None

    def remove(self, flow: Flow) -> None:
        """Take `flow` out, as it changes lane or has ended; what it has to say stays with it."""
        if flow.control_listed:
            del self.control[flow]
            flow.control_listed = False
        if flow.data_listed:
            del self.data[flow]
            flow.data_listed = False
            flow.deficit = 0

    def clear(self) -> None:
        """Take all flows out: nobody is left to hear what they have to say."""
        for flow in (*self.control, *self.data):
            flow.control_listed = flow.data_listed = False
        self.control.clear()
        self.data.clear()

    def fill(
        self, parts: list[Buffer], room: int, number: int, now: float, round_trip: float
    ) -> list[tuple[Flow, int]]:
        """Append up to `room` bytes of frames for batch `number`; return the flows that wrote data, with how much."""
        left = room
        control = self.control
        while control and left > 0:
            flow, _ = control.popitem(last=False)
            flow.control_listed = False
            if flow.say:
                left -= flow.write_control(parts, now, round_trip)
                flow.last_batch = number
        wrote: list[tuple[Flow, int]] = []
        data = self.data
        while data and left > LEAST_DATA:
            flow = next(iter(data))
            if flow.deficit <= 0:
                flow.deficit += self._quantum
            if flow.kind is FlowKind.STREAM:
                size = flow.write_data(parts, left if len(data) == 1 else min(left, flow.deficit + HEADER_SIZE))
            else:
                forced = not wrote and flow.deficit >= left  # however large: control leaves no batch empty for it
                size = flow.write_datagrams(parts, min(left, flow.deficit), forced, now)
            if size:
                left -= size
                flow.deficit -= size
                flow.last_batch = number
                wrote.append((flow, size))
            if not flow.pending:
                del data[flow]
                flow.data_listed = False
                flow.deficit = 0
            elif flow.deficit <= 0:
                data.move_to_end(flow)
            elif not size:
                if wrote and flow.deficit >= left:
                    break  # a datagram that does not fit any more opens the next batch
                flow.deficit += self._quantum
                data.move_to_end(flow)
        return wrote
