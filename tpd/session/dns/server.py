"""Answering the laptop's DNS questions: decide by name, ask one side or both, reply as the question came."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from tpd.session.dns.loop import LoopGuard, mark
from tpd.session.dns.names import Names, Route, route
from tpd.session.dns.question import (
    FORMERR,
    NOTIMP,
    NXDOMAIN,
    SERVFAIL,
    Question,
    answers_to,
    failure,
    fitted,
    parse,
    rcode,
    udp_limit,
    with_name,
)
from tpd.session.dns.shared import Reply, Shared
from tpd.session.dns.upstream import Upstream
from tunnel.aio.tasks import Tasks

log = logging.getLogger(__name__)

ClusterQuery = Callable[[bytes, Callable[[bytes | None], None]], None]
"""Ask the manager a raw message; None: no carrier, or no answer in time."""

MAX_UPSTREAM = 512
"""Questions under way to the laptop's resolvers; further ones fail at once."""


class DnsServer:
    """`names` is None until the cluster is known: then every question goes where it went before."""

    def __init__(
        self,
        *,
        query_cluster: ClusterQuery,
        cluster_is_near: Callable[[], bool],
        upstream: Upstream,
        tasks: Tasks,
        randomness: random.Random,
    ) -> None:
        self._query_cluster = query_cluster
        self._cluster_is_near = cluster_is_near
        self._upstream = upstream
        self._tasks = tasks
        self._random = randomness
        self._guard = LoopGuard()
        self._shared = Shared()
        self._asking = 0
        self.names: Names | None = None

    def ask(self, message: bytes, tcp: bool, reply: Reply) -> bool:
        """Handle one message; `reply` is called once, perhaps at once. False: not a question, and no reply comes."""
        question = parse(message)
        if question is None:
            if len(message) >= 12 and not message[2] & 0x80:
                ident, flags = int.from_bytes(message[:2], "big"), int.from_bytes(message[2:4], "big")
                reply(failure(Question(ident, flags, (), b"\0", 1, 1), FORMERR))
                return True
            return False
        if not question.is_query:
            reply(failure(question, NOTIMP))
            return True
        answer = reply if tcp else self._limited(message, question, reply)
        way = route(question.labels, self.names) if self.names else Route.UPSTREAM
        if way is Route.NOBODY:
            reply(failure(question, NXDOMAIN))
        elif way is Route.UPSTREAM:
            self._ask_upstream(message, question, tcp, answer)
        elif self._guard.came_back(question.name, question.qtype):
            reply(failure(question, NXDOMAIN))
        elif (answer_all := self._shared.join(message, question, tcp, answer)) is not None:
            self._ask_cluster(message, question, way, tcp, answer_all)
        return True

    def _limited(self, message: bytes, question: Question, reply: Reply) -> Reply:
        return lambda found: reply(
            found if len(found) <= 512 else fitted(found, question, udp_limit(message, question))
        )

    def _ask_cluster(self, message: bytes, question: Question, way: Route, tcp: bool, reply: Reply) -> None:
        if not self._cluster_is_near():
            reply(failure(question, SERVFAIL))
            return
        name, marked = question.name, False
        if way is not Route.CLUSTER or not self._is_authoritative(question):
            name = mark(question.name, self._random.getrandbits(256))
            marked = name != question.name
        if marked:
            self._guard.sent(name, question.qtype)

        def done(found: bytes | None) -> None:
            if marked:
                self._guard.finished(name, question.qtype)
            if found is None or not answers_to(found, question):
                reply(failure(question, SERVFAIL))
            elif way is Route.CLUSTER_THEN_UPSTREAM and rcode(found) == NXDOMAIN:
                self._ask_upstream(message, question, tcp, reply)
            else:
                reply(found if len(found) >= question.end else failure(question, rcode(found)))

        self._query_cluster(with_name(message, name), done)

    def _is_authoritative(self, question: Question) -> bool:
        """Names of the cluster domain never leave the cluster, so they need no mark, which would show in answers."""
        domain = self.names.domain if self.names else ()
        return bool(domain) and question.labels[-len(domain) :] == domain

    def _ask_upstream(self, message: bytes, question: Question, tcp: bool, reply: Reply) -> None:
        if self._asking >= MAX_UPSTREAM:
            reply(failure(question, SERVFAIL))
            return
        self._asking += 1
        self._tasks.spawn(self._forward(message, question, tcp, reply), name="dns-upstream")

    async def _forward(self, message: bytes, question: Question, tcp: bool, reply: Reply) -> None:
        found = None
        try:
            found = await self._upstream.ask(message, question, tcp=tcp)
        except Exception:  # whoever waits must hear something
            log.exception("asking the laptop's resolvers failed")
        finally:
            self._asking -= 1
        reply(found if found is not None else failure(question, SERVFAIL))
