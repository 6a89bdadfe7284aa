import asyncio

from manager.registry import Agents, Attendance, LiveSessions, Wakeup, Wanted, Wishes
from manager.state.model import Target
from manager.state.tests.samples import session
from tunnel.proto import manager_pb2


def test_streams_learn_that_their_session_ended() -> None:
    async def body() -> None:
        live = LiveSessions()
        ended: list[str] = []
        live.on_end.append(ended.append)
        live.update({"s1": session("s1"), "s2": session("s2")})
        with live.stream("s1") as first, live.stream("s2") as second, live.stream("s3") as unknown:
            live.update({"s2": session("s2")})
            assert (first.is_set(), second.is_set(), unknown.is_set()) == (True, False, True)
        assert ended == ["s1"]
        assert live["s1"] is None

    asyncio.run(body())


def test_an_agents_second_stream_takes_the_place_of_its_first() -> None:
    async def body() -> None:
        agents = Agents()
        first, second = (Attendance("uid", "pod", "ns", "", 9900) for _ in range(2))
        changes: list[frozenset[str]] = []
        agents.on_change.append(lambda: changes.append(agents.uids()))
        with agents.attend(first), agents.attend(second):
            attending = agents["uid"]
            assert attending is second
        assert changes == [{"uid"}, {"uid"}, frozenset()]

    asyncio.run(body())


def test_only_news_is_told() -> None:
    async def body() -> None:
        attendance = Attendance("uid", "pod", "ns", "", 9900)
        attendance.offer(manager_pb2.AgentGrants(lease_seconds=5))
        assert attendance.changed.is_set()
        attendance.changed.clear()
        attendance.offer(manager_pb2.AgentGrants(lease_seconds=5))
        assert not attendance.changed.is_set()

    asyncio.run(body())


def test_a_wakeup_is_remembered_until_waited_for() -> None:
    async def body() -> None:
        wakeup = Wakeup()
        wakeup.set()
        wakeup.set()
        await asyncio.wait_for(wakeup.wait(None), 1)
        started = asyncio.get_running_loop().time()
        await wakeup.wait(0.05)
        assert asyncio.get_running_loop().time() - started >= 0.04

    asyncio.run(body())


def test_wishes_are_unknown_until_told() -> None:
    wishes = Wishes()
    target = Target("shop", "Deployment", "echo")
    assert not wishes.known
    assert wishes.of(target) is None
    wishes.update({target: Wanted(frozenset({"app"}), frozenset())})
    assert wishes.namespaces() == {"shop"}
