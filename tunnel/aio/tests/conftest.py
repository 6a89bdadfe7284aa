"""Runs coroutine tests in a loop of their own (uvloop, as in service), and complains about tasks left behind."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvloop

TEST_DEADLINE = 50.0
OURS = ("carrier.", "link.", "line.", "rig.", "memory.")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        async with asyncio.timeout(TEST_DEADLINE):
            await pyfuncitem.obj(**arguments)
        ours = {task for task in asyncio.all_tasks() if task.get_name().startswith(OURS)}
        if ours:  # a cancelled task may need a moment
            _, ours = await asyncio.wait(ours, timeout=1.0)
        assert not {task.get_name() for task in ours}, "tasks left behind"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    return True
