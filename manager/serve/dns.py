"""A laptop's DNS question, answered by the cluster's resolver as the connected namespace sees it."""

from __future__ import annotations

import asyncio

import dns.exception
import dns.message

from manager.serve.resolver import Resolver
from manager.state import names


class ClusterDns:
    """Applies the search path and asks."""

    def __init__(self, resolver: Resolver, domain: str) -> None:
        self._resolver = resolver
        self._domain = domain

    async def answer(self, message: bytes, namespace: str) -> bytes:
        """The raw answer to a raw question; empty when it is none that can be answered."""
        try:
            query = names.parse(message)
        except names.Malformed:
            return b""
        asked = query.question[0].name
        meant = names.candidates(asked, namespace, self._domain)
        if meant == [asked]:
            # Nothing to rename: the resolver's own bytes.
            return await self._resolver.ask(message) or names.reply(query, None)
        answers = await asyncio.gather(
            *(self._resolver.ask(names.expanded(query, candidate, query.id)) for candidate in meant)
        )
        parsed = [_parse(answer) for answer in answers]
        chosen = names.choose(parsed)
        return names.reply(query, None if chosen is None else parsed[chosen])


def _parse(answer: bytes | None) -> dns.message.Message | None:
    if answer is None:
        return None
    try:
        return dns.message.from_wire(answer, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None
