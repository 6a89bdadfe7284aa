"""The server's links: who resumes what, and what detached links may hold (docs/protocol.md, sections 3 and 9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunnel.mux import handshake
from tunnel.mux.errors import GoAway, HelloRefused
from tunnel.mux.handshake import Hello
from tunnel.mux.lane import Lane
from tunnel.mux.link import Link


@dataclass(frozen=True)
class Bounds:
    """What detached links may hold, all sessions together; the longest detached goes first."""

    links: int = 256
    flows: int = 16384
    bytes: int = 256 << 20


MOST_PER_SESSION = 4
"""Links with a carrier that one session may have; it needs one, and for a moment two."""


class Registry:
    """Links by session and client instance. `make_link(session)` makes a server's link; ending one is the caller's."""

    def __init__(self, make_link: Callable[[str], Link], bounds: Bounds) -> None:
        self._make_link = make_link
        self._bounds = bounds
        self._links: dict[tuple[str, bytes], Link] = {}

    def greet(self, hello: Hello, session: str) -> tuple[Link, bytes, list[Link]]:
        """Answer a hello whose sender proved to be `session`.

        Returns the link, now attached, the answer to send, and links that it replaces, which must be ended.
        Raises HelloRefused or RemoteProtocolError.
        """
        if hello.session != session:
            raise HelloRefused(GoAway.SESSION, "the certificate is for another session")
        handshake.choose_version(hello)
        key = (session, hello.instance)
        link = self._links.get(key)
        if link is not None and link.ended is None and hello.peer_instance in (b"", link.instance):
            return link, link.answer(hello), []
        if hello.lane is not Lane.INTERACTIVE:
            raise HelloRefused(GoAway.UNKNOWN_LINK, "the link is not known here")
        # A session is one process: whatever links it left behind without a carrier, it will not come back to them.
        replaced = [other for other in self.links(session) if other is link or not other.attached]
        if len(self.links(session)) - len(replaced) >= MOST_PER_SESSION:
            raise HelloRefused(GoAway.BUSY, "the session has too many links")
        for other in replaced:
            self.remove(other)
        link = self._make_link(session)
        answer = link.answer(hello)
        self._links[key] = link
        return link, answer, replaced

    def links(self, session: str | None = None) -> list[Link]:
        """The session's (or all) links, those with a carrier first, of them the newest first."""
        links = [link for (owner, _), link in self._links.items() if session in (None, owner)]
        links.reverse()
        return sorted(links, key=lambda link: not link.attached)

    def remove(self, link: Link) -> None:
        """The link has ended or is about to."""
        key = (link.session, link.peer_instance)
        if self._links.get(key) is link:
            del self._links[key]

    def excess(self) -> list[Link]:
        """Detached links that are too many, the longest detached first; the caller ends and removes them."""
        detached = [link for link in self._links.values() if not link.attached]
        detached.sort(key=lambda link: link.detached_at or 0.0, reverse=True)
        bounds, flows, held = self._bounds, 0, 0
        for kept, link in enumerate(detached):
            flows += len(link.flows)
            held += link.held
            if kept >= bounds.links or flows > bounds.flows or held > bounds.bytes:
                return detached[kept:][::-1]
        return []
