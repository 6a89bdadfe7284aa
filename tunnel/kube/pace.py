"""How soon one watch follows another."""

from __future__ import annotations

import asyncio
import random

from tunnel.aio.backoff import Backoff

_LONGEST_PAUSE = 2.0
_LIVED = 5.0
"""Seconds after which a watch counts as one that worked, however it ended. What it brought says nothing: a server that
ends every watch at once may well begin each with the object."""


class Pace:
    """`rest` between watches: short after one that lived, else longer each time, up to 2 s."""

    def __init__(self) -> None:
        self._backoff = Backoff(0.1, _LONGEST_PAUSE, random.random)
        self._began = asyncio.get_running_loop().time()

    async def rest(self) -> None:
        """The watch has ended, in whatever way; returns when the next one may begin."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._began >= _LIVED:
            self._backoff.reset()
        await asyncio.sleep(self._backoff.next())
        self._began = loop.time()
