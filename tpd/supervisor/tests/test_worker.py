"""What a worker may cost tpd, whatever it does: time, memory and secrets."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tpd.supervisor import keyring, worker
from tpd.supervisor.tests.test_supervisor import ME
from tpd.supervisor.worker import Pace, Worker, WorkerGone
from tunnel import control
from tunnel.proto import daemon_pb2 as pb


class Bench:
    worker: Worker

    def __init__(self) -> None:
        self.progress: list[pb.Event] = []
        self.wishes = 0

    async def on_progress(self, event: pb.Event) -> None:
        self.progress.append(event)

    async def on_host(self, config: pb.HostConfig) -> None:
        self.wishes += 1
        self.worker.send(pb.ToWorker(host_reply=pb.HostReply(id=config.id, refused=["x" * 100_000])))

    async def ask(self, workload: str, container: str = "") -> pb.Event:
        request = pb.Request(replace=pb.Replace(workload=workload, container=container))
        return await self.worker.ask(request, self.on_progress)

    @asynccontextmanager
    async def begun(self, workload: str, container: str = "") -> AsyncIterator[asyncio.Task[pb.Event]]:
        """The command is being worked on, as its progress says."""
        asked = asyncio.create_task(self.ask(workload, container))
        while not self.progress:  # noqa: ASYNC110  it happens in another process
            await asyncio.sleep(0.01)
        try:
            yield asked
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def go() -> None:
        bench = Bench()
        ours, theirs = os.pipe()
        bench.worker = await Worker.start(
            user=ME,
            environment={},
            start=pb.WorkerStart(),
            tun=ours,
            on_host=bench.on_host,
            module="tpd.supervisor.tests.example_worker",
        )
        os.close(ours)
        os.close(theirs)
        running = asyncio.create_task(bench.worker.run())
        try:
            async with asyncio.timeout(20):
                await scenario(bench)
        finally:
            await bench.worker.end()
            async with asyncio.timeout(5):
                await running

    asyncio.run(go())


def test_pace() -> None:
    pace = Pace(20, 5)
    assert [pace.delay(100.0) for _ in range(5)] == [0.0] * 5
    assert pace.delay(100.0) == pytest.approx(0.05)
    assert pace.delay(100.05) == pytest.approx(0.05)
    assert pace.delay(200.0) == 0.0


def test_one_that_does_not_read_is_ended_with_all_that_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "EXIT_GRACE", 0.2)

    async def scenario(bench: Bench) -> None:
        async with bench.begun("deaf") as deaf:
            asked = [asyncio.create_task(bench.ask("x", "x" * 1_000_000)) for _ in range(3)]
            await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                await bench.worker.end()
                for each in (deaf, *asked):
                    with pytest.raises(WorkerGone):
                        await each

    run(scenario)


def test_a_child_that_keeps_the_output_open_does_not_keep_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "EXIT_GRACE", 10.0)

    async def scenario(bench: Bench) -> None:
        child = int((await bench.ask("orphan")).replace.environment["pid"])
        began = time.monotonic()
        try:
            await bench.worker.end()
            assert time.monotonic() - began < 8
            assert bench.worker.exit() == "exit status 0"
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    run(scenario)


def test_progress_for_a_caller_that_does_not_read_is_bounded() -> None:
    async def scenario(bench: Bench) -> None:
        reading = asyncio.Event()
        seen = []

        async def slow(event: pb.Event) -> None:
            seen.append(event)
            await reading.wait()

        request = pb.Request(replace=pb.Replace(workload="flood"))
        asked = asyncio.create_task(bench.worker.ask(request, slow))
        await asyncio.sleep(0)
        await bench.ask("whoami")  # behind the flood
        reading.set()
        assert (await asked).WhichOneof("event") == "replace"
        assert len(seen) < 10

    run(scenario)


def test_one_that_reads_no_answer_to_its_wishes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_WISHES", 1e6)

    async def scenario(bench: Bench) -> None:
        async with bench.begun("wishes", "60") as asked:
            with pytest.raises(WorkerGone, match="it did not read its messages"):
                await asked
        assert bench.worker.gone
        assert bench.wishes * 100_000 < control.MAX_MESSAGE + 1_000_000
        with pytest.raises(WorkerGone):
            await bench.ask("whoami")

    run(scenario)


def test_wishes_come_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_WISHES", 1)
    monkeypatch.setattr(worker, "_WISHES_AT_ONCE", 3)
    monkeypatch.setattr(worker, "EXIT_GRACE", 0.2)

    async def scenario(bench: Bench) -> None:
        began = time.monotonic()
        async with bench.begun("wishes", "50"):
            while bench.wishes < 4:  # noqa: ASYNC110  another process asks
                await asyncio.sleep(0.01)
        assert time.monotonic() - began > 0.9

    run(scenario)


def test_one_that_dies_is_gone_at_once_whatever_it_had_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_WISHES", 1)
    monkeypatch.setattr(worker, "_WISHES_AT_ONCE", 1)

    async def scenario(bench: Bench) -> None:
        async with bench.begun("wishes", "50") as asked:
            os.kill(bench.worker.pid, signal.SIGKILL)
            async with asyncio.timeout(5):
                with pytest.raises(WorkerGone):
                    await asked
        assert bench.worker.gone

    run(scenario)


def test_one_that_asks_for_too_much_at_once_is_given_up() -> None:
    async def scenario(bench: Bench) -> None:
        async with bench.begun("wishes", "1000") as asked:
            with pytest.raises(WorkerGone, match="it asked for too much at once"):
                await asked

    run(scenario)


def test_a_session_keyring_of_its_own() -> None:
    if keyring.session() < 0:
        pytest.skip("no session keyrings here")

    async def scenario(bench: Bench) -> None:
        known = (await bench.ask("whoami")).replace.environment
        assert int(known["keyring"]) > 0
        seen.append(int(known["keyring"]))

    seen = [keyring.session()]
    run(scenario)
    run(scenario)
    assert len(set(seen)) == 3
