"""Sessions end and are made again: when, how often, and what is said about it; time and sessions are the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tpd.session.errors import SessionError
from tpd.session.keeper import MOST_PAUSE, UPDATE_PAUSE, Keeper, Trouble, trouble_of
from tpd.session.kube.session_object import SessionVanished
from tunnel.aio.link_client import LinkRefused
from tunnel.mux.errors import GoAway


class Session:
    """Lives for `life` seconds of the test's clock and ends with `error`."""

    def __init__(self, world: World, life: float, error: Exception) -> None:
        self._world = world
        self._life = life
        self._error = error

    async def run(self) -> None:
        self._world.now += self._life
        raise self._error


class World:
    """Makes what `script` gives, a session or the failure to make one; cancels the keeper at its end."""

    def __init__(self, *script: tuple[float, Exception] | Exception) -> None:
        self.now = 0.0
        self.script: Iterator[tuple[float, Exception] | Exception] = iter(script)
        self.pauses: list[float] = []
        self.told: list[Trouble] = []
        self.ended: list[Session] = []
        self.fails_to_end = False

    async def make(self) -> Session:
        step = next(self.script, None)
        if step is None:
            raise asyncio.CancelledError
        if isinstance(step, Exception):
            raise step
        return Session(self, *step)

    async def end(self, session: Session) -> None:
        self.ended.append(session)
        if self.fails_to_end:
            raise OSError("no way")

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def run(self) -> None:
        keeper = Keeper(
            make=self.make,
            end=self.end,
            tell=self.told.append,
            random=lambda: 0.0,
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        with pytest.raises(asyncio.CancelledError):
            await keeper.run(await self.make())


def test_sessions_that_are_refused_at_once_come_at_growing_pauses() -> None:
    world = World(*[(0.2, LinkRefused("no such session"))] * 12)
    asyncio.run(world.run())
    assert world.pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert world.pauses[-1] == MOST_PAUSE
    assert len(world.ended) == 12


def test_a_session_that_lived_long_has_a_successor_at_once() -> None:
    world = World(*[(0.2, LinkRefused("no"))] * 8, (3600, SessionVanished("its lease ended")), (1, LinkRefused("no")))
    asyncio.run(world.run())
    assert world.pauses[-2:] == [0.1, 0.2]


def test_another_protocol_is_told_and_tried_seldom() -> None:
    refused = LinkRefused("the other side speaks tunnel protocol 3 to 4, this side 1 to 2", GoAway.VERSION)
    world = World(*[(0.1, refused)] * 3)
    asyncio.run(world.run())
    assert world.pauses == [UPDATE_PAUSE] * 3
    assert world.told[0].hopeless
    assert "update the older side" in world.told[0].text


def test_no_exception_ends_the_keeper() -> None:
    away = SessionError("the API server is away", retryable=True)
    world = World((1, KeyError("metadata")), away, (1, TypeError()), (1, SessionError("you may not")))
    world.fails_to_end = True
    asyncio.run(world.run())
    assert [trouble.hopeless for trouble in world.told] == [False, False, False, True]
    assert "bug in tpctl" in world.told[0].text
    assert world.told[1].text == "the API server is away"
    assert len(world.ended) == 3


def test_an_ended_session_is_no_reason_to_give_up() -> None:
    assert trouble_of(SessionVanished("its lease ended")) == Trouble("the session has ended: its lease ended")
