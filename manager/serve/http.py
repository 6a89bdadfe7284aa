"""How the manager runs its HTTP servers, which anybody in the cluster may call."""

from __future__ import annotations

import gc
import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

COLLECT_EVERY = 16
"""Requests that are no HTTP, after which the garbage collector runs."""


def runner(application: web.Application, name: str) -> web.AppRunner:
    """An aiohttp runner that keeps nothing of what strangers send: neither in its log, nor in memory, nor open."""
    logger = logging.getLogger(f"manager.http.{name}")
    logger.addFilter(_NoGarbage())
    return web.AppRunner(application, access_log=None, logger=logger, lingering_time=0)


class _NoGarbage(logging.Filter):
    """aiohttp tells its logger of every request that is no HTTP, with all of its header: up to a megabyte in one line.

    Its error and the connection then hold one another and what was read, and the garbage collector, which counts
    objects and not bytes, would come when that is a gigabyte.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError):
            return True
        self._seen += 1
        if self._seen % COLLECT_EVERY == 0:
            gc.collect()
        return False
