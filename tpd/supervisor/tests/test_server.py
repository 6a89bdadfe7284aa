"""The socket: one request a connection, and no input harms anybody but its sender."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tpd.supervisor import server, users
from tpd.supervisor.connection import Progress
from tpd.supervisor.server import Server
from tpd.supervisor.supervisor import Handler
from tunnel import control
from tunnel.proto import daemon_pb2 as pb


async def answer(user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
    await on_progress(pb.Event(progress=pb.Progress(text="working")))
    if request.WhichOneof("command") == "replace":
        await asyncio.sleep(3600)
    return pb.Event(get_version=pb.VersionResult(daemon=f"for {user.uid}"))


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(folder: Path, scenario: Callable[[Path], Awaitable[None]], *, handle: Handler = answer) -> None:
    async def go() -> None:
        path = folder / "tpd.sock"
        made = Server(path, handle, starter=os.getuid())
        await made.start()
        try:
            async with asyncio.timeout(10):
                await scenario(path)
        finally:
            await made.close()
            await made.drain(2)

    asyncio.run(go())


async def good(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(control.encode(pb.Request(get_version=pb.Version())))
    events = [await control.read(reader, pb.Event) for _ in range(3)]
    assert events[0] is not None
    assert events[0].progress.text == "working"
    assert events[1] is not None
    assert events[1].get_version.daemon == f"for {os.getuid()}"
    assert events[2] is None
    writer.close()


def test_events_then_the_final_one_then_the_end(tmp_path: Path) -> None:
    run(tmp_path, good)
    assert not (tmp_path / "tpd.sock").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!I", control.MAX_MESSAGE + 1) + b"x",
        struct.pack("!I", 5) + b"\xff" * 5,
        struct.pack("!I", 100) + b"x",
        b"",
    ],
)
def test_garbage_ends_that_connection_only(tmp_path: Path, data: bytes) -> None:
    async def scenario(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await good(path)

    run(tmp_path, scenario)


def test_a_caller_that_says_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(path: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(server, "REQUEST_TIMEOUT", 0.1)
            reader, writer = await asyncio.open_unix_connection(path)
            assert await reader.read() == b""
            writer.close()
        await good(path)

    run(tmp_path, scenario)


def test_half_messages_of_a_user_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_READING", 1)

    async def scenario(path: Path) -> None:
        half = struct.pack("!I", control.MAX_MESSAGE) + bytes(control.MAX_MESSAGE - 1)
        _, first = await asyncio.open_unix_connection(path)
        first.write(half)
        await first.drain()
        _, second = await asyncio.open_unix_connection(path)
        second.write(half)
        with pytest.raises(TimeoutError):  # the rest waits in the kernel, not in tpd
            await asyncio.wait_for(second.drain(), 0.2)
        first.write_eof()  # in the middle of its message, which ends it
        await second.drain()
        for one in (first, second):
            one.transport.abort()
        await good(path)

    run(tmp_path, scenario)


@pytest.mark.parametrize("size", [250_000, 3_000_000], ids=["a little too much for the kernel", "a lot"])
def test_an_answer_that_is_not_read_counts_until_it_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(server, "MAX_CALLERS", 1)
    monkeypatch.setattr(server, "WRITE_TIMEOUT", 1.0)

    async def long(user: users.User, request: pb.Request, on_progress: Progress) -> pb.Event:
        text = "" if request.WhichOneof("command") == "status" else "x" * size
        return pb.Event(get_version=pb.VersionResult(daemon=text))

    async def scenario(path: Path) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(control.encode(pb.Request(get_version=pb.Version())))
        await asyncio.sleep(0.1)
        told = [await other(path)]
        while told[-1]:
            await asyncio.sleep(0.1)
            told.append(await other(path))
        assert told[0] == "too many commands at once; try again"
        writer.transport.abort()

    async def other(path: Path) -> str:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(control.encode(pb.Request(status=pb.Status())))
        event = await control.read(reader, pb.Event)
        writer.transport.abort()
        assert event is not None
        return event.error.text

    run(tmp_path, scenario, handle=long)


def test_a_caller_that_leaves_ends_its_work(tmp_path: Path) -> None:
    async def scenario(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(control.encode(pb.Request(replace=pb.Replace(workload="x"))))
        await control.read(reader, pb.Event)
        writer.close()
        await writer.wait_closed()

    run(tmp_path, scenario)  # `drain` would wait for the hour otherwise


def test_too_many_at_once_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CALLERS", 1)

    async def scenario(path: Path) -> None:
        first = await asyncio.open_unix_connection(path)
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_unix_connection(path)
        event = await control.read(reader, pb.Event)
        assert event is not None
        assert event.error.text == "too many commands at once; try again"
        for one in (first[1], writer):
            one.close()

    run(tmp_path, scenario)


def test_who_may_not_use_it_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "allowed", lambda *_, **__: False)

    async def scenario(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        event = await control.read(reader, pb.Event)
        assert event is not None
        assert "group tpd" in event.error.text
        assert await reader.read() == b""
        writer.close()

    run(tmp_path, scenario)


def test_systemds_socket_is_used_and_left_there(tmp_path: Path) -> None:
    """As a child, because the descriptor must be number 3 and LISTEN_PID the process itself (sd_listen_fds(3))."""
    code = (
        "import asyncio, os, socket, sys\n"
        "from pathlib import Path\n"
        "from tpd.supervisor import server\n"
        "listening = socket.socket(socket.AF_UNIX)\nlistening.bind(sys.argv[1])\nos.dup2(listening.fileno(), 3)\n"
        "told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ntold.bind(sys.argv[2])\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', NOTIFY_SOCKET=sys.argv[2])\n"
        "async def main():\n"
        "  one = server.Server(Path('/nonexistent'), None, starter=os.getuid())\n"
        "  await one.start()\n  server.notify_ready()\n"
        "  reader, writer = await asyncio.open_unix_connection(sys.argv[1])\n"
        "  writer.close()\n  await one.close()\n"
        "asyncio.run(main())\n"
        "assert told.recv(100) == b'READY=1'\nassert os.path.exists(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s"), str(tmp_path / "n")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
