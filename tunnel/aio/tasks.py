"""Every task has a name and an owner, and a failure is logged the moment it happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

STUCK_AFTER = 5.0
"""Seconds after which `stop` says which tasks do not end."""


class Tasks:
    """Owns background tasks: keeps them alive, logs those that fail, and ends them all in `stop`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Start a task that lives until it ends or `stop`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self._name}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel all tasks, those too that they start meanwhile, and wait for them, saying which ones take long."""
        told = {asyncio.current_task()}
        while waiting := self._tasks - {asyncio.current_task()}:
            for task in waiting - told:
                task.cancel()
            told |= waiting
            _, late = await asyncio.wait(waiting, timeout=STUCK_AFTER)
            for task in late:
                _log.warning("task %s does not end", task.get_name())

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)
