"""Names of the API server and its proxy, which must stay known while the resolver that knew them is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp.abc import AbstractResolver, ResolveResult

Resolve = Callable[[str], Awaitable[list[str]]]
"""The addresses of a host, as text (`192.0.2.1`, `2001:db8::1`), best first. Raises OSError or gives nothing when it
finds none. It is not called for what is an address already."""

_PATIENCE = 1.0
"""Seconds that a resolver has while good addresses are remembered: a dial has only three, and during an outage the
resolver may be on the far side of it."""


class LastGoodResolver(AbstractResolver):
    """Asks `resolve` (None: the system's resolver), and gives the last good addresses when that finds nothing."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve or _system
        self._good: dict[str, list[str]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """As aiohttp asks. Raises OSError when there is no address, and never was."""
        good = self._good.get(host)
        try:
            async with asyncio.timeout(_PATIENCE if good else None):
                found = await self._resolve(host)
            if not found:
                raise OSError(f"{host} has no address")
        except OSError:  # the time-out is one too
            if good is None:
                raise
            found = good
        self._good[host] = found
        return [_result(host, address, port) for address in found]

    async def close(self) -> None:
        """Nothing is held."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)


async def _system(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
