"""Framing of control messages: tpctl <-> tpd, and tpd <-> session worker.

On the wire each message is a 4-byte big-endian length and that many bytes of a protobuf message of
`tunnel/proto/daemon.proto`. The first message of tpd to a worker also carries the descriptor of the TUN device
(SCM_RIGHTS, attached to the four bytes of the length).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes. A longer message ends the connection it came on; environments and workload lists stay far below."""

_LENGTH = struct.Struct("!I")

M = TypeVar("M", bound=Message)


class BadMessage(Exception):
    """The peer sent something that is not a message of ours; the connection it came on must be closed."""


def encode(message: Message) -> bytes:
    """The message with its length in front. Raises BadMessage when it is longer than MAX_MESSAGE."""
    body = message.SerializeToString()
    if len(body) > MAX_MESSAGE:
        raise BadMessage(f"a message of {len(body)} bytes is longer than the allowed {MAX_MESSAGE}")
    return _LENGTH.pack(len(body)) + body


def decode(kind: type[M], body: bytes) -> M:
    """The message in `body`. Raises BadMessage when it is none."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise BadMessage(f"not a {kind.__name__}: {error}") from error


def _length(header: bytes) -> int:
    length: int = _LENGTH.unpack(header)[0]
    if length > MAX_MESSAGE:
        raise BadMessage(f"a message of {length} bytes is longer than the allowed {MAX_MESSAGE}")
    return length


# ---- asyncio


async def read(reader: asyncio.StreamReader, kind: type[M]) -> M | None:
    """The next message; None when the peer closed the connection between two messages.

    Raises BadMessage on garbage and on an end inside a message. Has no deadline: use `asyncio.timeout`.
    """
    try:
        header = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadMessage("the connection ended inside a message") from error
        return None
    try:
        body = await reader.readexactly(_length(header))
    except asyncio.IncompleteReadError as error:
        raise BadMessage("the connection ended inside a message") from error
    return decode(kind, body)


# ---- blocking sockets: the CLI, and a worker before its loop runs


def send(sock: socket.socket, message: Message) -> None:
    """Send one message on a blocking socket."""
    sock.sendall(encode(message))


def receive(sock: socket.socket, kind: type[M]) -> M | None:
    """The next message of a blocking socket; None when the peer closed it between two messages.

    Raises BadMessage as `read` does, and TimeoutError as the socket's own timeout says.
    """
    header = _receive_exactly(sock, _LENGTH.size)
    if header is None:
        return None
    body = _receive_exactly(sock, _length(header))
    if body is None:
        raise BadMessage("the connection ended inside a message")
    return decode(kind, body)


def _receive_exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            if data:
                raise BadMessage("the connection ended inside a message")
            return None
        data += part
    return bytes(data)


# ---- the descriptor of the TUN device


def send_with_fd(sock: socket.socket, message: Message, fd: int) -> None:
    """Send one message on a blocking socket, with a descriptor attached. The caller keeps its own descriptor."""
    data = encode(message)
    sent = socket.send_fds(sock, [data[: _LENGTH.size]], [fd])
    sock.sendall(data[sent:])


def receive_with_fd(sock: socket.socket, kind: type[M]) -> tuple[M, int]:
    """The next message of a blocking socket and the descriptor that came with it (close-on-exec).

    Reads not one byte beyond the message, so that the socket can be handed to asyncio afterwards. Raises
    BadMessage when the socket ended, sent something else, or attached no descriptor or several.
    """
    header, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 4)
    try:
        if len(fds) != 1:
            raise BadMessage(f"{len(fds)} descriptors came with the first message instead of one")
        if len(header) < _LENGTH.size:
            rest = _receive_exactly(sock, _LENGTH.size - len(header))
            if rest is None:
                raise BadMessage("the connection ended inside a message")
            header += rest
        body = _receive_exactly(sock, _length(header))
        if body is None:
            raise BadMessage("the connection ended inside a message")
        message = decode(kind, body)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    os.set_inheritable(fds[0], False)
    return message, fds[0]


def inherited_socket(fd: int) -> socket.socket:
    """The control socket that a worker inherited as descriptor `fd`, blocking, closed in its own children."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    return sock
