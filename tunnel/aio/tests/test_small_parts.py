"""Tasks, backoff, logging, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys

import pytest

from tunnel.aio.backoff import Backoff
from tunnel.aio.link_timer import LinkTimer
from tunnel.aio.logging import Context, RateLimited
from tunnel.aio.signals import stop_on_signals
from tunnel.aio.tasks import Tasks
from tunnel.mux.link import Link


async def test_tasks_are_named_logged_when_they_fail_and_stopped(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks("owner")
    started = asyncio.Event()

    async def fail() -> None:
        raise ValueError("broken")

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    failing = tasks.spawn(fail(), name="fail")
    waiting = tasks.spawn(wait(), name="wait")
    await started.wait()
    assert (failing.get_name(), waiting.get_name()) == ("owner.fail", "owner.wait")
    assert "task owner.fail failed" in caplog.text
    assert len(tasks) == 1
    await tasks.stop()
    assert waiting.cancelled()
    assert len(tasks) == 0


async def test_what_tasks_start_while_they_are_stopped_is_stopped_too() -> None:
    tasks = Tasks("owner")
    started = asyncio.Event()
    late: list[asyncio.Task[bool]] = []

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            late.append(tasks.spawn(asyncio.Event().wait(), name="late"))

    tasks.spawn(wait(), name="wait")
    await started.wait()
    await tasks.stop()
    assert late[0].cancelled()
    assert len(tasks) == 0


async def test_a_task_may_stop_its_owner() -> None:
    tasks = Tasks("owner")

    async def last() -> str:
        await tasks.stop()
        return "done"

    assert await tasks.spawn(last(), name="last") == "done"


def test_backoff_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(0.1, 1.0, lambda: 0.0)
    assert [backoff.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    backoff.reset()
    assert backoff.next() == 0.1
    assert Backoff(1.0, 2.0, lambda: 0.999).next() == pytest.approx(0.5, abs=0.01)


def test_rate_limited_logging_says_what_it_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    limited = RateLimited(logging.getLogger("test.limited"), lambda: now, burst=2, interval=10.0)
    with caplog.at_level(logging.INFO):
        for number in range(5):
            limited.log(logging.INFO, "packet %d", number)
        now = 11.0
        limited.log(logging.INFO, "packet %d", 5)
        Context(logging.getLogger("test.context"), "link=a").info("hello")
    assert [record.getMessage() for record in caplog.records] == [
        "packet 0",
        "packet 1",
        "left out 3 messages like the next one",
        "packet 5",
        "[link=a] hello",
    ]


async def test_a_signal_asks_to_stop() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 2)
        assert stop.signal is signal.SIGTERM


PROGRAM = """
import asyncio, sys
from tunnel.aio.signals import finish, stop_on_signals
async def main():
    with stop_on_signals() as stop:
        print("ready", flush=True)
        await stop.wait()
        if sys.argv[1] == "stuck":
            print("stuck", flush=True)
            await asyncio.sleep(60)
    return stop
finish(asyncio.run(main()))
"""


@pytest.mark.parametrize("manner", ["orderly", "stuck"])
def test_the_exit_status_tells_the_signal_and_a_second_one_forces(manner: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, manner], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        if manner == "stuck":
            assert process.stdout.readline() == "stuck\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


async def test_a_links_timer_asks_for_the_next_deadline_also_when_the_last_one_armed_it() -> None:
    loop = asyncio.get_running_loop()
    fired = asyncio.Event()

    class Armed(Link):
        """Arms something late when it is called, although something else is due soon."""

        calls = 0

        def __init__(self) -> None:
            pass

        def on_timeout(self) -> None:
            self.calls += 1
            timer.arm(loop.time() + 1000)
            if self.calls == 2:
                fired.set()

        def next_timeout(self) -> float:
            return loop.time() + (1000 if self.calls == 2 else 0.01)

    timer = LinkTimer(Armed(), loop)
    timer.rearm()
    await asyncio.wait_for(fired.wait(), 5)
    timer.stop()
