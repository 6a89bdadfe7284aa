"""Framing: what goes in comes out, and garbage ends the connection instead of the process."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading

import pytest

from tunnel import control
from tunnel.proto import daemon_pb2 as pb


def read_bytes(*parts: bytes, eof: bool = True) -> pb.Request | None:
    async def go() -> pb.Request | None:
        reader = asyncio.StreamReader()
        for part in parts:
            reader.feed_data(part)
        if eof:
            reader.feed_eof()
        return await control.read(reader, pb.Request)

    return asyncio.run(go())


def test_round_trip() -> None:
    request = pb.Request(version="1", connect=pb.Connect(name="x", environment={"A": "b"}))
    assert read_bytes(control.encode(request)) == request


def test_end_between_messages_is_no_error() -> None:
    assert read_bytes() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        control.encode(pb.Request(version="1.2.3"))[:-1],
        struct.pack("!I", control.MAX_MESSAGE + 1),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!I", 3) + b"\xff\xff\xff",
    ],
)
def test_garbage_is_a_bad_message(data: bytes) -> None:
    with pytest.raises(control.BadMessage):
        read_bytes(data)


def test_too_long_a_message_is_not_sent() -> None:
    with pytest.raises(control.BadMessage, match="longer"):
        control.encode(pb.Request(version="x" * (control.MAX_MESSAGE + 1)))


def test_blocking_sockets_take_messages_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = pb.Request(version="v" * 100_000)
        sender = threading.Thread(target=control.send, args=(ours, message))
        sender.start()
        assert control.receive(theirs, pb.Request) == message
        sender.join()
        ours.close()
        assert control.receive(theirs, pb.Request) is None


def test_a_descriptor_travels_with_the_first_message_and_nothing_is_read_beyond_it() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with ours, theirs:
        control.send_with_fd(ours, pb.ToWorker(start=pb.WorkerStart(device="tp0")), writing)
        control.send(ours, pb.ToWorker(cancel=7))
        os.close(writing)
        message, fd = control.receive_with_fd(theirs, pb.ToWorker)
        assert message.start.device == "tp0"
        assert not os.get_inheritable(fd)
        os.write(fd, b"x")
        os.close(fd)
        assert os.read(reading, 10) == b"x"
        assert os.read(reading, 10) == b""
        second = control.receive(theirs, pb.ToWorker)
        assert second is not None
        assert second.cancel == 7
    os.close(reading)


def test_a_first_message_without_descriptor_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        control.send(ours, pb.ToWorker(start=pb.WorkerStart()))
        with pytest.raises(control.BadMessage, match="0 descriptors"):
            control.receive_with_fd(theirs, pb.ToWorker)
