"""Which lane each flow of ours writes to, and when it changes (docs/protocol.md, section 4, "Which lane")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunnel.mux import frames
from tunnel.mux.flow import Flow, State
from tunnel.mux.frames import Type
from tunnel.mux.lane import Lane, LaneState

if TYPE_CHECKING:
    from tunnel.mux.link import Link

BULK_AFTER = 128 << 10
"""Bytes a flow sends without a pause before it is one for the bulk lane."""
BURST_PAUSE = 1.0
"""Seconds of silence that end a burst."""
BULK_PAUSE = 2.0
"""Seconds of silence after which a flow is interactive again."""
CALM_BYTES = 128 << 10
"""A flow that sends less than this in BULK_PAUSE is interactive again too."""
WANT_AGAIN = 1.0
"""Seconds between requests for a bulk carrier."""


class Placement:
    """Lists flows in the schedule of their lane, and moves them when all they wrote is acknowledged."""

    def __init__(self, link: Link, interactive: LaneState, bulk: LaneState) -> None:
        self._link = link
        self._interactive = interactive
        self._bulk = bulk
        self._moving: set[Flow] = set()
        self.want_at: float | None = None
        """When to ask for a bulk carrier again; None: none is wanted."""

    @property
    def busy(self) -> bool:
        """Whether flows are on their way to the other lane."""
        return bool(self._moving)

    def list_control(self, flow: Flow) -> None:
        """The flow has control to write."""
        if not flow.moving:
            state = self._link.lanes[flow.lane]
            state.schedule.add_control(flow)
            self._link.wake(state)

    def list_data(self, flow: Flow) -> None:
        """The flow has data, datagrams or eof to write."""
        if flow.moving:
            return
        if flow.lane and flow.last_batch <= self._bulk.acked:
            now = self._link.clock()
            if now - flow.last_write > BULK_PAUSE or (flow.burst < CALM_BYTES and now - flow.burst_at > BULK_PAUSE):
                self._set_lane(flow, Lane.INTERACTIVE)
                if flow.data_listed:
                    return
        state = self._link.lanes[flow.lane]
        state.schedule.add_data(flow)
        self._link.wake(state)

    def wrote(self, flow: Flow, size: int, now: float) -> None:
        """The flow put so much into a batch."""
        paused = not flow.continuing and now - flow.last_write > BURST_PAUSE
        if paused or (flow.lane and now - flow.burst_at > BULK_PAUSE):
            flow.burst = 0
            flow.burst_at = now
        flow.burst += size
        flow.last_write = now
        self._link.guard(flow.offer_room)
        flow.continuing = flow.wants_more
        if flow.eof_sent:
            self._link.guard(flow.finish_if_done)
        elif flow.lane == Lane.INTERACTIVE and flow.burst >= BULK_AFTER and not flow.moving:
            if self._bulk.attached is None:
                self.want_bulk()
            elif flow.state is State.OPEN:
                flow.moving = True
                self._moving.add(flow)
                self._interactive.schedule.remove(flow)
                self._link.ping(self._interactive)

    def acknowledged(self) -> None:
        """The interactive lane made progress: flows that wait for it may move."""
        acked = self._interactive.acked
        for flow in [flow for flow in self._moving if flow.last_batch <= acked]:
            self._set_lane(flow, Lane.BULK if self._bulk.attached is not None else Lane.INTERACTIVE)

    def forget(self, flow: Flow) -> None:
        """The flow is finished; if it still has something to say, that goes out where it is."""
        self._moving.discard(flow)
        flow.moving = False
        self._link.lanes[flow.lane].schedule.remove(flow)

    def want_bulk(self) -> None:
        """Ask for a bulk carrier, again and again until it is there."""
        link = self._link
        if self._bulk.attached is not None or link.ended is not None or self.want_at is not None:
            return
        self.want_at = link.clock() + WANT_AGAIN
        link.arm(self.want_at)
        if link.dials:
            link.shell.on_want(Lane.BULK)
        elif self._interactive.attached is not None:
            self._interactive.control.append(frames.frame(Type.WANT, 0, Lane.BULK))
            link.wake(self._interactive)

    def on_timeout(self, now: float) -> None:
        """Ask again when it is time."""
        if self.want_at is not None and self.want_at <= now:
            self.want_at = None
            if self._bulk.under_way or self._bulk.schedule or self._wanted():
                self.want_bulk()

    def attached(self, state: LaneState) -> None:
        """A lane has a carrier (again)."""
        if state is self._bulk:
            self.want_at = None
        elif self._bulk.under_way or self._bulk.schedule:
            self.want_at = None
            self.want_bulk()

    def lost_bulk(self) -> None:
        """The bulk carrier is gone: whoever can goes back, the others wait for the next one."""
        for flow in list(self._link.flows.values()):
            if flow.lane == Lane.BULK and flow.last_batch <= self._bulk.acked:
                self._set_lane(flow, Lane.INTERACTIVE)
        if self._bulk.under_way or self._bulk.schedule:
            self.want_bulk()

    def restart(self) -> None:
        """The other end is a new one."""
        self._moving.clear()
        self.want_at = None

    def _wanted(self) -> bool:
        return any(flow.burst >= BULK_AFTER and flow.wants_more for flow in self._link.flows.values())

    def _set_lane(self, flow: Flow, lane: Lane) -> None:
        """Everything of the flow is acknowledged: go on in `lane`."""
        self._moving.discard(flow)
        self._link.lanes[flow.lane].schedule.remove(flow)
        flow.moving = False
        flow.lane = lane
        flow.last_batch = flow.burst = 0
        flow.last_write = flow.burst_at = self._link.clock()
        if flow.say:
            self.list_control(flow)
        if flow.pending and flow.state is State.OPEN:
            self.list_data(flow)
