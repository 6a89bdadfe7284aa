"""The delaying line, on the loopback: time, order, ends and resets."""

import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.cluster.commands import wait_for
from integration.cluster.lan_programs import line_program

RTT = 0.04


@contextlib.contextmanager
def line(tmp_path: Path, target: socket.socket, rtt: float) -> Iterator[tuple[str, int]]:
    port_file = tmp_path / "port"
    to = f"127.0.0.1:{target.getsockname()[1]}"
    words = line_program("127.0.0.1:0", to, rtt=rtt, port_file=port_file)
    with subprocess.Popen([sys.executable, *words[1:]]) as process:
        try:
            wait_for("the line", port_file.exists, timeout=10, every=0.01)
            yield "127.0.0.1", int(port_file.read_text())
        finally:
            process.kill()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def test_round_trips(tmp_path: Path, server: socket.socket) -> None:
    with line(tmp_path, server, RTT) as address, socket.create_connection(address, 10) as near:
        begun = time.monotonic()
        near.sendall(b"question")
        far, _ = server.accept()
        with far:
            assert far.recv(100) == b"question"
            assert RTT * 1.5 <= time.monotonic() - begun < RTT * 1.5 + 0.1  # opening costs a round trip
            far.sendall(b"answer")
            assert near.recv(100) == b"answer"
            assert RTT * 2 <= time.monotonic() - begun < RTT * 2 + 0.2


@pytest.mark.parametrize("rtt", [0.0, RTT])
def test_bulk_arrives_whole_with_its_end(tmp_path: Path, server: socket.socket, rtt: float) -> None:
    sent = hashlib.sha256()
    block = bytes(range(256)) * 4096

    def receive(result: list[str]) -> None:
        far, _ = server.accept()
        with far:
            digest = hashlib.sha256()
            while content := far.recv(1 << 16):
                digest.update(content)
            result.append(digest.hexdigest())
            far.sendall(b"got it")  # after the other side's end: half-close

    received: list[str] = []
    receiver = threading.Thread(target=receive, args=(received,))
    receiver.start()
    with line(tmp_path, server, rtt) as address, socket.create_connection(address, 10) as near:
        begun = time.monotonic()
        for number in range(100):
            piece = number.to_bytes(4, "big") + block
            sent.update(piece)
            near.sendall(piece)
        near.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b"got it"
        assert near.recv(100) == b""
        assert time.monotonic() - begun < 5
    receiver.join(10)
    assert received == [sent.hexdigest()]


def test_a_reader_that_stops_stops_its_sender(tmp_path: Path, server: socket.socket) -> None:
    with line(tmp_path, server, RTT) as address, socket.create_connection(address, 10) as near:
        far, _ = server.accept()
        with far:
            near.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 1 << 30:
                    sent += near.send(bytes(1 << 20))
            assert sent < 200 << 20


def test_resets_travel(tmp_path: Path, server: socket.socket) -> None:
    with line(tmp_path, server, RTT) as address:
        with socket.create_connection(address, 10) as near:
            far, _ = server.accept()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
            with pytest.raises(ConnectionResetError):
                near.recv(1)
        server.close()
        begun = time.monotonic()
        with socket.create_connection(address, 10) as near, pytest.raises(ConnectionResetError):
            near.recv(1)
        assert time.monotonic() - begun >= RTT
