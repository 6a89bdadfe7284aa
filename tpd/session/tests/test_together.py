"""The first failure is the failure of all, and a cancellation is never lost."""

from __future__ import annotations

import asyncio

import pytest

from tpd.session.together import together


async def _value(value: int) -> int:
    return value


async def _sleep() -> None:
    await asyncio.sleep(60)


async def _fail(text: str, after: float = 0.0) -> int:
    await asyncio.sleep(after)
    raise ValueError(text)


async def _fail_when_cancelled(begun: asyncio.Event) -> None:
    try:
        begun.set()
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        raise ValueError("while it ended")


def test_results_come_in_order() -> None:
    async def run() -> tuple[int, int, int]:
        return await together(_value(1), _value(2), _value(3))

    assert asyncio.run(run()) == (1, 2, 3)


def test_the_first_failure_is_raised_itself() -> None:
    async def run() -> None:
        await together(together(_fail("first"), _sleep()), _fail("second", 60))

    with pytest.raises(ValueError, match="first"):
        asyncio.run(run())


def test_a_cancellation_wins_over_what_fails_while_it_is_obeyed() -> None:
    async def run() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(_both(begun), name="cancelled")
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def _both(begun: asyncio.Event) -> None:
        await together(_fail_when_cancelled(begun), _sleep())

    asyncio.run(run())


def test_a_deadline_around_it_is_a_timeout() -> None:
    async def run() -> None:
        async with asyncio.timeout(0.01):
            await together(_fail_when_cancelled(asyncio.Event()), _sleep())

    with pytest.raises(TimeoutError):
        asyncio.run(run())
