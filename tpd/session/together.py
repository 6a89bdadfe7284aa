"""Running several things at once where the first failure is the failure of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
async def together(a: Coroutine[Any, Any, A], b: Coroutine[Any, Any, B], /) -> tuple[A, B]: ...
@overload
async def together(
    a: Coroutine[Any, Any, A], b: Coroutine[Any, Any, B], c: Coroutine[Any, Any, C], /
) -> tuple[A, B, C]: ...
@overload
async def together(
    a: Coroutine[Any, Any, A], b: Coroutine[Any, Any, B], c: Coroutine[Any, Any, C], d: Coroutine[Any, Any, D], /
) -> tuple[A, B, C, D]: ...
async def together(*coroutines: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """The results, in order. The first exception cancels the others and is raised itself, not as a group.

    A cancellation wins over failures. That is why it is no TaskGroup: before Python 3.13 that one forgets to be
    cancelled when one of its tasks fails while it ends, and its owner goes on as if nothing had been asked.
    """
    tasks = [asyncio.create_task(each, name=getattr(each, "__qualname__", "together")) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end(tasks)
    for task in tasks:
        if task in done and not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return tuple(task.result() for task in tasks)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel them and wait for all, however often we are cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    again: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            again = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would log those that failed while they ended
    if again is not None:
        raise again
