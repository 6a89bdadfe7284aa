"""The addresses of the hosts that carriers run to: the API server, or the proxy on the way.

The laptop's name resolution knows them best (several links, a VPN's own names). But a name that the cluster would
answer (`api.prod`, where the cluster has a namespace `prod`) must not be asked in the cluster that is behind it: such a
one is asked as the laptop would ask without us, in /etc/hosts and then of its own resolvers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from tpd.session.dns.question import TRUNCATED, Question, parse

log = logging.getLogger(__name__)

_HOSTS = Path("/etc/hosts")


class Resolvers(Protocol):
    """The laptop's own (`dns.upstream.Upstream`)."""

    async def ask(self, message: bytes, question: Question, *, tcp: bool) -> bytes | None:
        """The answer, if there is one."""


class CarrierHosts:
    """`resolve` is what the API client asks (`tunnel.kube.resolver.Resolve`)."""

    def __init__(
        self,
        upstream: Resolvers,
        *,
        search: Callable[[], Sequence[str]],
        is_clusters: Callable[[str], bool],
        on_addresses: Callable[[Sequence[str]], Awaitable[None]],
        hosts: Path = _HOSTS,
    ) -> None:
        """search(): the laptop's own search list. is_clusters(host): whether a question for it goes to the cluster.
        on_addresses is awaited with what was found, before anybody dials it."""
        self._upstream = upstream
        self._search = search
        self._is_clusters = is_clusters
        self._on_addresses = on_addresses
        self._hosts = hosts

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a name. Raises OSError."""
        found = await (self._own(host) if self._is_clusters(host) else _system(host))
        await self._on_addresses(found)
        return found

    async def _own(self, host: str) -> list[str]:
        found = in_hosts(await asyncio.to_thread(_text, self._hosts), host)
        for name in () if found else whole_names(host, self._search()):
            fours, sixes = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
            found = [*fours, *sixes]
            if found:
                break
        return found

    async def _ask(self, name: str, kind: str) -> list[str]:
        import dns.exception
        import dns.message
        import dns.rdatatype

        try:
            message = dns.message.make_query(name, kind).to_wire()
            question = parse(message)
            assert question is not None
            reply = await self._upstream.ask(message, question, tcp=False)
            if reply is not None and int.from_bytes(reply[2:4], "big") & TRUNCATED:
                reply = await self._upstream.ask(message, question, tcp=True)
            if reply is None:
                return []
            wanted = dns.rdatatype.from_text(kind)
            answer = dns.message.from_wire(reply).answer
            return [str(record) for records in answer if records.rdtype == wanted for record in records]
        except dns.exception.DNSException as error:
            log.info("asking for %s %s: %s", name, kind, error)
            return []


async def _system(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def in_hosts(text: str, host: str) -> list[str]:
    """Pure. What a file in the form of /etc/hosts says of a name (hosts(5))."""
    found = []
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if host.lower() in (name.lower() for name in names):
            found.append(address)
    return found


def whole_names(host: str, search: Sequence[str]) -> list[str]:
    """Pure. What is asked for a name, in order (resolv.conf(5): search, ndots:1)."""
    longer = [] if host.endswith(".") else [f"{host}.{domain}" for domain in search]
    return [host, *longer] if "." in host else [*longer, host]
