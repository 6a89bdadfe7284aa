"""Pure. Equal questions that are in flight at the same time are one question: sixty-four threads that look up the same
service cost the cluster as much as one."""

from __future__ import annotations

from collections.abc import Callable

from tpd.session.dns.question import Question, readdressed

Reply = Callable[[bytes], None]


class Shared:
    """Who waits for which question."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[bytes, bool], list[tuple[Question, Reply]]] = {}

    def join(self, message: bytes, question: Question, tcp: bool, reply: Reply) -> Reply | None:
        """Wait for the answer to `message`. None: an equal question is in flight. Else the caller asks it, and calls
        what is returned with the answer, once; everybody who joined until then gets it, under his own id and in his own
        spelling.

        Equal are messages that differ in nothing but the id and the case of the name, over the same transport.
        """
        key = (message[2:12] + question.name.lower() + message[12 + len(question.name) :], tcp)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((question, reply))
            return None
        self._waiting[key] = [(question, reply)]

        def answer(found: bytes) -> None:
            for each, reply_to in self._waiting.pop(key):
                reply_to(readdressed(found, each))

        return answer
