"""Pure. The little of a DNS message that routing needs (RFC 1035 section 4, RFC 6891 for the UDP size)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("!6H")
_QUESTION_TAIL = struct.Struct("!HH")
_RECORD_TAIL = struct.Struct("!HHIH")

RESPONSE = 0x8000
TRUNCATED = 0x0200
RECURSION_DESIRED = 0x0100
RECURSION_AVAILABLE = 0x0080
_OPCODE = 0x7800

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4

_OPT = 41
CLASSIC_UDP_LIMIT = 512
"""Bytes of a reply over UDP to a client that sent no OPT record (RFC 1035 section 4.2.1)."""


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query. `labels` are lower case, the root label left out."""

    id: int
    flags: int
    labels: tuple[str, ...]
    name: bytes
    """The name as it stood in the message, case kept."""
    qtype: int
    qclass: int

    @property
    def end(self) -> int:
        """Offset in the message behind the question."""
        return _HEADER.size + len(self.name) + _QUESTION_TAIL.size

    @property
    def is_query(self) -> bool:
        """Opcode QUERY; other opcodes (NOTIFY, UPDATE, …) are not ours to route."""
        return not self.flags & _OPCODE


def parse(message: bytes) -> Question | None:
    """The question of a query with exactly one; None for anything else (a response, garbage)."""
    if len(message) < _HEADER.size:
        return None
    ident, flags, count, *_ = _HEADER.unpack_from(message)
    if flags & RESPONSE or count != 1:
        return None
    labels: list[str] = []
    at = _HEADER.size
    while True:
        if at >= len(message):
            return None
        length = message[at]
        if length == 0:
            at += 1
            break
        if length > 63 or at - _HEADER.size + length > 254:  # compression never occurs in a query's question
            return None
        labels.append(message[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += 1 + length
    if at + _QUESTION_TAIL.size > len(message):
        return None
    qtype, qclass = _QUESTION_TAIL.unpack_from(message, at)
    return Question(ident, flags, tuple(labels), bytes(message[_HEADER.size : at]), qtype, qclass)


def with_name(message: bytes, name: bytes) -> bytes:
    """`message` with the question's name in other letters' case (same length)."""
    return message[: _HEADER.size] + name + message[_HEADER.size + len(name) :]


def readdressed(reply: bytes, question: Question) -> bytes:
    """`reply` to an equal question as the reply to this one: its id, and its spelling of the name."""
    ident, count = question.id.to_bytes(2, "big"), int.from_bytes(reply[4:6], "big")
    return ident + (with_name(reply, question.name) if count else reply)[2:]


def answers_to(reply: bytes, question: Question) -> bool:
    """Whether `reply` is a response to `question`: same id, name (any case), type and class."""
    if len(reply) < question.end:
        return len(reply) >= _HEADER.size and _answers_without_question(reply, question)
    ident, flags, count, *_ = _HEADER.unpack_from(reply)
    if ident != question.id or not flags & RESPONSE:
        return False
    if count == 0:
        return _answers_without_question(reply, question)
    at = _HEADER.size + len(question.name)
    return reply[_HEADER.size : at].lower() == question.name.lower() and reply[at : question.end] == (
        _QUESTION_TAIL.pack(question.qtype, question.qclass)
    )


def _answers_without_question(reply: bytes, question: Question) -> bool:
    """Servers may leave the question out of an error (FORMERR, SERVFAIL, …), never out of an answer."""
    ident, flags, count, *_ = _HEADER.unpack_from(reply)
    return bool(ident == question.id and flags & RESPONSE and count == 0 and rcode(reply) != NOERROR)


def rcode(reply: bytes) -> int:
    """The response code in the header (NXDOMAIN, …); SERVFAIL for what is too short to be a reply."""
    return reply[3] & 0x0F if len(reply) >= _HEADER.size else SERVFAIL


def failure(question: Question, code: int) -> bytes:
    """A reply without records."""
    flags = RESPONSE | (question.flags & (_OPCODE | RECURSION_DESIRED)) | RECURSION_AVAILABLE | code
    header = _HEADER.pack(question.id, flags, 1, 0, 0, 0)
    return header + question.name + _QUESTION_TAIL.pack(question.qtype, question.qclass)


def udp_limit(message: bytes, question: Question) -> int:
    """How large a reply over UDP the client takes: what its OPT record says, else 512 bytes."""
    _, _, _, answers, authorities, additionals = _HEADER.unpack_from(message)
    at = question.end
    for _ in range(min(answers + authorities + additionals, 16)):
        end = _skip_name(message, at)
        if end is None or end + _RECORD_TAIL.size > len(message):
            break
        kind, size, _ttl, length = _RECORD_TAIL.unpack_from(message, end)
        if kind == _OPT:
            return max(CLASSIC_UDP_LIMIT, int(size))
        at = end + _RECORD_TAIL.size + length
    return CLASSIC_UDP_LIMIT


def fitted(reply: bytes, question: Question, limit: int) -> bytes:
    """`reply`, or when it is longer than `limit` an empty one that says: ask again over TCP (TC bit)."""
    if len(reply) <= limit:
        return reply
    ident, flags, *_ = _HEADER.unpack_from(reply)
    header = _HEADER.pack(ident, flags | TRUNCATED, 1, 0, 0, 0)
    return header + question.name + _QUESTION_TAIL.pack(question.qtype, question.qclass)


def _skip_name(message: bytes, at: int) -> int | None:
    while at < len(message):
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    return None
