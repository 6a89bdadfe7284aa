"""Commands, with real worker processes and a host that only remembers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tpd.supervisor.host.memory import MemoryHost
from tpd.supervisor.host.types import Slot, Upstreams
from tpd.supervisor.supervisor import Supervisor
from tpd.supervisor.users import User
from tpd.supervisor.worker import Worker
from tunnel.aio.tasks import Tasks
from tunnel.proto import daemon_pb2 as pb
from tunnel.version import VERSION

ME = User(uid=os.getuid(), gid=os.getgid(), pid=os.getpid(), groups=frozenset({os.getgid()}))
HOST = json.dumps({"subnets": ["10.96.0.0/12"], "domains": ["svc", "cluster.local"], "dns": True})


class Bench:
    def __init__(self, tasks: Tasks) -> None:
        self.host = MemoryHost()
        self.supervisor = Supervisor(self.host, tasks, module="tpd.supervisor.tests.example_worker")
        self.progress: list[str] = []

    async def ask(self, request: pb.Request, user: User = ME) -> pb.Event:
        async def on_progress(event: pb.Event) -> None:
            self.progress.append(event.progress.text)

        if not request.version:
            request.version = VERSION
        async with asyncio.timeout(15):
            return await self.supervisor.handle(user, request, on_progress)

    async def connect(self, name: str = "", namespace: str = "demo", host: str = HOST) -> pb.Event:
        environment = {"EXAMPLE_HOST": host, "HOME": "/nonexistent"}
        return await self.ask(pb.Request(connect=pb.Connect(name=name, namespace=namespace, environment=environment)))

    async def status(self, user: User = ME) -> list[pb.ConnectionStatus]:
        return list((await self.ask(pb.Request(status=pb.Status()), user)).status.connections)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():  # noqa: ASYNC110  what it waits for happens in other processes
                await asyncio.sleep(0.01)


def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def go() -> None:
        tasks = Tasks("test")
        bench = Bench(tasks)
        try:
            await scenario(bench)
        finally:
            await bench.supervisor.shutdown()
            await tasks.stop()
        assert bench.host.granted == {}

    asyncio.run(go())


def test_connect_status_quit() -> None:
    async def scenario(bench: Bench) -> None:
        event = await bench.connect()
        assert event.connect.name == "example-demo"
        assert event.connect.device == "tp0"
        assert bench.progress == ["making the session"]
        assert "10.96.0.0/12 dev tp0" in bench.host.text()
        (status,) = await bench.status()
        assert (status.state, status.resolver, status.connection.name) == ("connected", "memory", "example-demo")
        assert status.worker_pid == next(iter(bench.host.workers.values()))
        again = await bench.connect()
        assert again.connect.existed
        assert (await bench.connect(name="example-demo")).connect.existed
        other = await bench.connect(namespace="other")
        assert other.error.text == "already connected as example-demo; run: tpctl quit"
        event = await bench.ask(pb.Request(quit=pb.Quit()))
        assert list(event.quit.connections) == ["example-demo"]
        assert bench.host.text() == ""
        assert await bench.status() == []

    run(scenario)


def test_a_connect_that_fails_leaves_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        event = await bench.connect(namespace="refused")
        assert event.error.text == "no manager there"
        assert event.error.category == pb.CLUSTER
        assert bench.host.granted == {}
        assert await bench.status() == []

    run(scenario)


def test_a_failing_host_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        async def full(owner: str, uid: int) -> object:
            raise OSError(28, "No space left on device")

        async def bug(owner: str, uid: int) -> object:
            raise ValueError("a bug")

        monkeypatch.setattr(bench.host, "open", full)
        assert "No space left on device" in (await bench.connect()).error.text
        monkeypatch.setattr(bench.host, "open", bug)
        event = await bench.connect()
        assert (event.error.text, event.error.category) == ("tpd failed on this command (ValueError)", pb.INTERNAL)
        monkeypatch.undo()
        assert (await bench.connect()).connect.name

    run(scenario)


def test_several_connections_have_names_and_do_not_share_routes() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect("a")
        event = await bench.connect("b")
        left_alone = ["10.96.0.0/12 is already routed to the connection a"]
        assert (list(event.connect.subnets), list(event.connect.left_alone)[:1]) == ([], left_alone)
        first, second = await bench.status()
        assert list(first.connection.subnets) == ["10.96.0.0/12"]
        assert (list(second.connection.subnets), list(second.connection.left_alone)[:1]) == ([], left_alone)
        assert bench.host.text().count("10.96.0.0/12") == 1
        event = await bench.ask(pb.Request(connection="b", replace=pb.Replace(workload="whoami")))
        assert "10.96.0.0/12 is already routed to the connection a" in event.replace.environment["refused"]
        event = await bench.ask(pb.Request(list=pb.ListWorkloads()))
        assert event.error.text == "there are several connections; choose one with --use: a, b"
        event = await bench.ask(pb.Request(connection="c", list=pb.ListWorkloads()))
        assert event.error.text == "there is no connection named c; there is a, b"
        await bench.ask(pb.Request(connection="a", quit=pb.Quit()))
        assert [status.connection.name for status in await bench.status()] == ["b"]

    run(scenario)


def test_nobody_sees_or_changes_anothers_connection() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        stranger = replace(ME, uid=ME.uid + 4242)
        assert await bench.status(stranger) == []
        for request in (
            pb.Request(list=pb.ListWorkloads()),
            pb.Request(connection="example-demo", list=pb.ListWorkloads()),
            pb.Request(connection="example-demo", quit=pb.Quit()),
        ):
            assert (await bench.ask(request, stranger)).error.text == "not connected; run: tpctl connect"
        assert list((await bench.ask(pb.Request(quit=pb.Quit()), stranger)).quit.connections) == []
        refused = await bench.ask(pb.Request(quit=pb.Quit(stop_daemon=True)), stranger)
        assert "others are connected" in refused.error.text
        assert len(await bench.status()) == 1
        assert len(await bench.status(replace(ME, uid=0))) == 1

    run(scenario)


def test_a_worker_that_dies_is_undone_and_said() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        event = await bench.ask(pb.Request(replace=pb.Replace(workload="die")))
        assert event.error.text == "the session worker ended: about to die"
        await bench.until(lambda: not bench.host.granted)
        (status,) = await bench.status()
        assert status.state == "failed"
        assert "about to die" in status.reason
        assert (await bench.connect()).connect.name == "example-demo"
        assert [one.state for one in await bench.status()] == ["connected"]

    run(scenario)


def test_no_answer_comes_before_a_dead_worker_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        close = bench.host.close

        async def slow(slot: Slot) -> None:
            await asyncio.sleep(0.3)
            await close(slot)

        monkeypatch.setattr(bench.host, "close", slow)
        for command in (pb.Request(status=pb.Status()), pb.Request(quit=pb.Quit())):
            await bench.connect()
            os.kill(next(iter(bench.host.workers.values())), signal.SIGKILL)
            await bench.ask(command)
            assert bench.host.granted == {}
        await bench.connect()
        os.kill(next(iter(bench.host.workers.values())), signal.SIGKILL)
        assert [status.state for status in await bench.status()] == ["failed"]
        assert [status.state for status in await bench.status()] == ["failed"]

    run(scenario)


def test_a_caller_that_goes_away_cancels_its_request() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        hanging = asyncio.create_task(bench.ask(pb.Request(replace=pb.Replace(workload="hang"))))
        await bench.until(lambda: "hanging" in bench.progress)
        hanging.cancel()
        await asyncio.wait([hanging])
        event = await bench.ask(pb.Request(replace=pb.Replace(workload="whoami")))
        assert len(json.loads(event.replace.environment["cancelled"])) == 1

    run(scenario)


def test_the_worker_is_its_users_process_alone() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        known = (await bench.ask(pb.Request(replace=pb.Replace(workload="whoami")))).replace.environment
        assert known["session"] == "True"
        assert known["isolated"] == "1"
        assert known["cwd"] == "/"
        environment = json.loads(known["environment"])
        assert environment["HOME"] == "/nonexistent"
        assert set(environment) <= {"EXAMPLE_HOST", "HOME", "USER", "LOGNAME", "LC_CTYPE"}

    run(scenario)


@pytest.mark.parametrize("version", ["", "0.0.1", "99.0.0"])
def test_another_version_is_refused_but_may_quit(version: str) -> None:
    async def scenario(bench: Bench) -> None:
        request = pb.Request(status=pb.Status())
        request.version = version or "x"
        event = await bench.ask(request)
        assert "tpctl quit -s" in event.error.text
        assert VERSION in event.error.text
        assert (await bench.ask(pb.Request(version="x", quit=pb.Quit()))).WhichOneof("event") == "quit"
        assert (await bench.ask(pb.Request(version="x", get_version=pb.Version()))).get_version.daemon == VERSION

    run(scenario)


def test_changed_resolvers_reach_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpd.supervisor.supervisor.WATCH_INTERVAL", 0.05)

    async def scenario(bench: Bench) -> None:
        await bench.connect()
        bench.host.own_upstreams = Upstreams(search=("new.example",))
        tend = bench.host.tend

        async def fails_once() -> bool:
            monkeypatch.setattr(bench.host, "tend", tend)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(bench.host, "tend", fails_once)
        bench.host.news = True
        async with asyncio.timeout(5):
            watch = asyncio.create_task(bench.supervisor.watch())
            bench.host.news = True
            known: dict[str, str] = {}
            while "new.example" not in known.get("upstreams", ""):
                bench.host.news = True
                event = await bench.ask(pb.Request(replace=pb.Replace(workload="whoami")))
                known = dict(event.replace.environment)
                await asyncio.sleep(0.1)
        watch.cancel()

    run(scenario)


def test_a_failing_look_at_the_resolvers_ends_neither_tpd_nor_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpd.supervisor.supervisor.WATCH_INTERVAL", 0.02)

    async def scenario(bench: Bench) -> None:
        await bench.connect()
        looks = []

        async def broken() -> Upstreams:
            looks.append(1)
            bench.host.news = True
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(bench.host, "upstreams", broken)
        bench.host.news = True
        watch = asyncio.create_task(bench.supervisor.watch())
        while len(looks) < 2:
            bench.host.news = True
            await asyncio.sleep(0.02)
        assert not watch.done()
        watch.cancel()

    run(scenario)


def test_a_worker_that_hangs_is_killed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        (pid,) = bench.host.workers.values()
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr("tpd.supervisor.connection.QUIT_GRACE", 0.2)
        monkeypatch.setattr("tpd.supervisor.worker.EXIT_GRACE", 0.2)
        event = await bench.ask(pb.Request(quit=pb.Quit()))
        assert list(event.quit.not_released) == ["example-demo: the worker did not answer in time"]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    run(scenario)


@pytest.mark.parametrize("name", ["a b", "a\x1b[2J", "a\nb", "x" * 254, "\u202e"])
def test_a_name_is_one_that_others_can_read(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        assert "choose another --name" in (await bench.connect(name=name)).error.text
        event = await bench.connect(namespace=name)  # the example's worker makes a name of it
        assert "choose one with --name" in event.error.text
        assert bench.host.granted == {}
        arn = "arn:aws:eks:eu-west-1:123456789012:cluster/a"
        assert (await bench.connect(name=arn)).connect.name == arn

    run(scenario)


def test_a_quit_while_a_connection_is_being_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Worker.start
    begun, workers = asyncio.Event(), []

    async def slow(**values: Any) -> Worker:
        workers.append(await start(**values))
        begun.set()
        await asyncio.sleep(0.1)
        return workers[0]

    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr(Worker, "start", slow)
        connecting = asyncio.create_task(bench.connect())
        await begun.wait()
        event = await bench.ask(pb.Request(quit=pb.Quit()))
        assert list(event.quit.not_released) == []
        assert bench.host.granted == {}
        assert workers[0].exit() != "it still runs"
        assert "quit while it was being made" in (await connecting).error.text

    run(scenario)


def test_what_one_connection_cannot_undo_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect("a")
        await bench.connect("b", namespace="other")
        close = bench.host.close

        async def broken(slot: Slot) -> None:
            await close(slot)
            if slot.index == 0:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(bench.host, "close", broken)
        (first, _) = bench.host.workers.values()
        os.kill(first, signal.SIGKILL)
        await bench.until(lambda: len(bench.host.granted) == 1)
        assert [one.connection.name for one in await bench.status() if one.state == "connected"] == ["b"]
        await bench.connect("c")
        event = await bench.ask(pb.Request(quit=pb.Quit()))
        assert "disconnected, but not everything of tp0 could be undone: [Errno 28] No space" in event.error.text
        assert bench.host.granted == {}
        assert await bench.status() == []

    run(scenario)


def test_a_quit_whose_caller_went_away_is_finished() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()

        async def gone(event: pb.Event) -> None:
            raise BrokenPipeError

        event = await bench.supervisor.handle(ME, pb.Request(version=VERSION, quit=pb.Quit()), gone)
        assert list(event.quit.not_released) == []
        assert bench.host.granted == {}

    run(scenario)


def test_nothing_new_is_made_while_tpd_stops() -> None:
    async def scenario(bench: Bench) -> None:
        bench.supervisor.stop.set()
        assert "being stopped" in (await bench.connect()).error.text

    run(scenario)


def test_what_a_worker_prints_is_not_for_roots_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.connect()
        event = await bench.ask(pb.Request(replace=pb.Replace(workload="die")))
        assert "about to die" in event.error.text
        await bench.until(lambda: "ended by itself: signal 9" in caplog.text)
        assert "about to die" not in caplog.text

    run(scenario)
