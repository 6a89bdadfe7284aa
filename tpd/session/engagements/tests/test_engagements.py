"""Engagements at the edges of sessions: what was begun in one, ended in another, or is still on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web

from tpd.session.control import Progress
from tpd.session.engagements import engagement, engagements
from tpd.session.engagements.agents import AgentLink
from tpd.session.engagements.engagements import Engagements
from tpd.session.errors import SessionError
from tpd.session.identity import new_identity
from tpd.session.kube import paths
from tpd.session.kube.session_object import SessionObject, SessionSpec
from tpd.session.peer_link import Shared
from tpd.session.tests.cluster import MANAGER, Cluster, Object, cluster
from tunnel.kube.api import Api
from tunnel.proto import daemon_pb2

ENGAGEMENTS = paths.engagements("demo")
LEAVE = daemon_pb2.Leave(workload="web")


class Laptop:
    """Engagements of one connection to the cluster; `sessions` are those that it had."""

    def __init__(self, away: Cluster, api: Api) -> None:
        self.away = away
        self.api = api
        self.engagements = Engagements(api, "ann", Shared())
        self.sessions: list[SessionObject] = []
        self.said: list[str] = []

    async def new_session(self) -> None:
        """The one before, if any, has ended."""
        if self.sessions:
            await self.engagements.pause()
        spec = SessionSpec("ann", "laptop", "machine", "1", "demo", "test-demo")
        session = SessionObject(self.api, MANAGER, spec, new_identity())
        await session.create()
        self.sessions.append(session)
        self.engagements.use(session)

    def replace(self) -> asyncio.Task[daemon_pb2.ReplaceResult]:
        """Begin a replace of deployment web."""
        progress = Progress(lambda event: self.said.append(event.progress.text))
        request = daemon_pb2.Replace(workload="web", no_ports=True)
        return asyncio.create_task(self.engagements.replace(request, "demo", progress))

    async def replaced(self) -> None:
        """A replace from its beginning to its end."""
        replacing = self.replace()
        self.activate(await self.asked())
        await replacing

    async def asked(self, number: int = 1) -> str:
        """Wait until so many engagements are there; the path of the newest."""
        await self.away.until(lambda: len(self.held()) == number)
        return self.held()[-1]

    def held(self) -> list[str]:
        """Paths of the engagements in the cluster, oldest first."""
        return [path for path in self.away.objects if path.startswith(ENGAGEMENTS)]

    def activate(self, path: str) -> None:
        """What the manager writes when the container is the laptop's."""
        self.away.set_status(path, phase="Active", pods=[{"name": "web-1", "uid": "pod-1"}])

    async def status(self, holds: Callable[[daemon_pb2.EngagementStatus], bool]) -> daemon_pb2.EngagementStatus:
        """Wait until the only engagement stands so."""
        for _ in range(1000):
            status = self.engagements.statuses()[0]
            if holds(status):
                return status
            await asyncio.sleep(0.01)
        raise TimeoutError

    async def phase(self, wanted: str) -> None:
        """The same for its phase alone."""
        await self.status(lambda status: status.phase == wanted)

    async def leave(self) -> daemon_pb2.LeaveResult:
        """Give it back."""
        return await self.engagements.leave(LEAVE, "demo", Progress(lambda _: None))


@asynccontextmanager
async def laptop() -> AsyncIterator[Laptop]:
    async with asyncio.timeout(20), cluster() as away, away.api() as api:
        container = {"name": "app", "image": "app"}
        away.objects[paths.workloads("Deployment", "demo", "web")] = {
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [container]}}},
        }
        away.add_pod("demo", "web-1")
        made = Laptop(away, api)
        await made.new_session()
        yield made
        away.gate.set()
        await made.engagements.release_all()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that say in which session they were asked."""

    async def answer(self: AgentLink, engagement: str) -> dict[str, str]:
        return {"SESSION": self._session.name}

    monkeypatch.setattr(AgentLink, "environment", answer)
    monkeypatch.setattr(engagements, "_LEAST_PAUSE", 0.02)


def test_a_replace_goes_on_in_the_next_session_and_has_its_environment_from_there() -> None:
    async def run() -> None:
        async with laptop() as tested:
            replacing = tested.replace()
            await tested.asked()
            await tested.status(lambda status: bool(status.uid))
            await tested.new_session()
            tested.activate(await tested.asked(2))
            result = await replacing
            assert dict(result.environment) == {"SESSION": tested.sessions[1].name}

    asyncio.run(run())


def test_without_any_agent_there_is_no_environment_but_an_error() -> None:
    async def run() -> None:
        async with laptop() as tested:
            replacing = tested.replace()
            tested.away.set_status(await tested.asked(), phase="Active", pods=[])
            with pytest.raises(SessionError, match="try again"):
                await replacing
            assert tested.held() == []

    asyncio.run(run())


def test_what_is_left_while_it_is_asked_for_again_does_not_come_back() -> None:
    async def run() -> None:
        async with laptop() as tested:
            await tested.replaced()
            tested.away.asked.clear()
            await tested.new_session()
            tested.away.gate.clear()
            await tested.away.asked.wait()
            leaving = asyncio.create_task(tested.leave())
            await asyncio.sleep(0.05)
            tested.away.gate.set()
            await leaving
            assert len(tested.held()) == 1, "that of the ended session, which the manager takes away"
            assert tested.engagements.statuses() == []

    asyncio.run(run())


def test_a_cancelled_replace_whose_request_is_under_way_leaves_nothing() -> None:
    async def run() -> None:
        async with laptop() as tested:
            tested.away.asked.clear()
            tested.away.gate.clear()
            replacing = tested.replace()
            await tested.away.asked.wait()
            replacing.cancel()
            await asyncio.sleep(0.05)
            tested.away.gate.set()
            with suppress(asyncio.CancelledError):
                await replacing
            assert tested.away.log.count(f"POST {ENGAGEMENTS}") == 1
            assert tested.held() == []

    asyncio.run(run())


def test_what_cannot_be_had_again_yet_is_asked_for_until_it_can() -> None:
    async def run() -> None:
        async with laptop() as tested:
            await tested.replaced()
            tested.away.refuse[f"POST {ENGAGEMENTS}"] = web.HTTPServiceUnavailable
            await tested.new_session()
            await tested.status(lambda status: "503" in status.reason and status.phase == "Pending")
            tested.away.refuse.clear()
            tested.activate(await tested.asked(2))
            await tested.phase("Active")

    asyncio.run(run())


def test_what_is_refused_in_the_next_session_is_lost_and_a_waiting_replace_hears_it() -> None:
    async def run() -> None:
        async with laptop() as tested:
            replacing = tested.replace()
            await tested.asked()
            await tested.status(lambda status: bool(status.uid))
            tested.away.refuse[f"POST {ENGAGEMENTS}"] = web.HTTPForbidden
            await tested.new_session()
            with pytest.raises(SessionError, match="refused"):
                await replacing

    asyncio.run(run())


def test_a_lost_engagement_that_is_replaced_anew_is_undone_first() -> None:
    async def run() -> None:
        async with laptop() as tested:
            await tested.replaced()
            (lost,) = tested.held()
            tested.away.set_status(lost, phase="Failed", message="The lease ended.")
            await tested.phase("Failed")
            replacing = tested.replace()
            await tested.away.until(lambda: tested.held() not in ([], [lost]))
            assert lost not in tested.held()
            tested.activate(tested.held()[0])
            await replacing
            assert [one.phase for one in tested.engagements.statuses()] == ["Active"]

    asyncio.run(run())


def test_a_slow_replace_has_time_as_long_as_something_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engagement, "SIGN_OF_LIFE", 0.1)
    monkeypatch.setattr(engagement, "ACTIVE_LIMIT", 0.4)

    async def run() -> None:
        async with laptop() as tested:
            replacing = tested.replace()
            path = await tested.asked()
            for pods in range(4):
                await asyncio.sleep(0.25)
                tested.away.set_status(path, **accepted(pods))
            await asyncio.sleep(0.1)
            assert not replacing.done()
            tested.activate(path)
            await replacing
            assert "waiting for pod web-2; 2 of 3 pods are replaced" in tested.said
            assert any("nothing new for" in text for text in tested.said), "a sign of life"

    asyncio.run(run())


def test_a_replace_in_which_nothing_happens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engagement, "SIGN_OF_LIFE", 0.05)
    monkeypatch.setattr(engagement, "ACTIVE_LIMIT", 0.2)

    async def run() -> None:
        async with laptop() as tested:
            replacing = tested.replace()
            tested.away.set_status(await tested.asked(), **accepted(1))
            with pytest.raises(SessionError, match=r"nothing has changed for .* waiting for pod web-1"):
                await replacing
            assert tested.held() == []

    asyncio.run(run())


def accepted(pods: int) -> dict[str, Any]:
    done: list[Object] = [{"name": f"web-{number}", "uid": f"pod-{number}"} for number in range(pods)]
    return {"phase": "Accepted", "message": f"Waiting for pod web-{pods}.", "pods": done}
