"""A quit while something is under way: the other requests hear of it, and nothing of theirs stays in the cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tpd.session.tests.cluster import SESSIONS, cluster
from tpd.session.tests.worker import connect_to, worker
from tunnel.kube.errors import KubeError


def test_a_quit_during_connect_takes_the_session_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.forwards and away.below(SESSIONS)))
            assert (await tested.quit(2)).WhichOneof("event") == "quit"
            error = (await tested.final(1)).error
            assert error.text == "the connection was ended by tpctl quit"
            assert away.below(SESSIONS) == []
            await away.until(lambda: not away.forwards)
            tested.start(3, connect_to(away, tmp_path))
            assert (await tested.final(3)).error.text == "the connection was ended by tpctl quit"

    asyncio.run(run())


def test_a_quit_while_the_session_is_being_created(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            away.gate.clear()
            tested.start(1, connect_to(away, tmp_path))
            await away.asked.wait()
            assert list((await tested.quit(2)).quit.not_released) == []
            assert (await tested.final(1)).error.text == "the connection was ended by tpctl quit"

    asyncio.run(run())


def test_a_quit_whose_caller_goes_away_is_carried_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.below(SESSIONS)))
            quitting = asyncio.create_task(tested.quit(2))
            await asyncio.sleep(0)
            tested.commands.cancel(2)
            assert (await quitting).WhichOneof("event") == "quit"
            assert away.below(SESSIONS) == []

    asyncio.run(run())


def test_a_request_whose_caller_goes_away_is_undone(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.below(SESSIONS)))
            tested.commands.cancel(1)
            await away.until(lambda: not away.below(SESSIONS))

    asyncio.run(run())


def test_two_quits_wait_for_the_same_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster() as away, worker() as tested:
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.below(SESSIONS)))
            events = await asyncio.gather(tested.quit(2), tested.quit(3))
            assert [event.WhichOneof("event") for event in events] == ["quit", "quit"]
            assert away.below(SESSIONS) == []

    asyncio.run(run())


def test_a_closed_api_is_an_api_error() -> None:
    async def run() -> None:
        async with cluster() as away:
            api = away.api()
            await api.close()
            with pytest.raises(KubeError, match="closed"):
                await api.get("/version")
            with pytest.raises(KubeError, match="closed"):
                await api.upgrade("/portforward", protocol="any")

    asyncio.run(run())
