"""TCP against the Linux kernel's own, in a network namespace of the test's."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tunnel.endpoint import Broken, Refusal
from tunnel.stack import Limits
from tunnel.testing.device import FaultyDevice
from tunnel.testing.laptop import HOST4, HOST6, Laptop
from tunnel.testing.services import DIGEST, ECHO, GREETING, PENDING, RESET, SOURCE, STALL, Service, pattern
from tunnel.tun import Device

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [HOST4, HOST6])


@pytest.fixture(scope="module")
def shared() -> Iterator[Laptop]:
    with Laptop() as laptop:
        yield laptop


@pytest.fixture
def laptop(shared: Laptop) -> Laptop:
    shared.services.services.clear()
    shared.services.released = False
    return shared


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for what another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def until_closed(service: Service) -> bool:
    """Wait for the end in order."""
    return until(lambda: service.closed == [None])


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the end."""
    parts = []
    while part := connection.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def send_and_end(connection: socket.socket, data: bytes) -> threading.Thread:
    """In a thread of its own, since it may block."""

    def run() -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def echo(connection: socket.socket, data: bytes) -> bytes:
    """Send everything while receiving; then end; what came back."""
    sender = send_and_end(connection, data)
    answer = receive_all(connection)
    sender.join(20)
    return answer


@HOSTS
@pytest.mark.parametrize("size", [1, 1459, 1460, 1461, 65535, 65536, 1_000_003])
def test_echoes(laptop: Laptop, host: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with laptop.connect(host, ECHO) as connection:
        assert echo(connection, data) == data
    service = laptop.services.services[-1]
    assert until(lambda: service.closed == [None])
    assert service.connection.local == (host, ECHO)


@pytest.mark.parametrize(("host", "size"), [(HOST4, 1_000_000_000), (HOST6, 300_000_000)])
def test_much_each_way(laptop: Laptop, host: str, size: int) -> None:
    sent = hashlib.sha256()
    position = 0
    with laptop.connect(host, DIGEST) as connection:
        while position < size:
            part = pattern(position, size - position)
            connection.sendall(part)
            sent.update(part)
            position += len(part)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == sent.digest()
    got = hashlib.sha256()
    left = size
    with laptop.connect(host, SOURCE) as connection:
        connection.sendall(str(size).encode())
        while left:
            part = memoryview(connection.recv(1 << 18))
            left -= len(part)
            got.update(part)
    assert got.digest() == sent.digest()


@HOSTS
@pytest.mark.parametrize(
    ("port", "error"),
    [
        (1, errno.ECONNREFUSED),
        (2, errno.EHOSTUNREACH),
        (3, errno.EHOSTUNREACH),
        (4, errno.EHOSTUNREACH),
        (5, errno.EHOSTUNREACH),
    ],
)
def test_refusals(laptop: Laptop, host: str, port: int, error: int) -> None:
    start = time.monotonic()
    with pytest.raises(OSError, match=os.strerror(error)):
        laptop.connect(host, port)
    assert time.monotonic() - start < 0.9, "a SYN that had to be repeated takes a second"


def test_a_late_refusal_is_as_honest(laptop: Laptop) -> None:
    connection = laptop.socket(HOST4)
    connection.setblocking(False)
    assert connection.connect_ex((HOST4, PENDING)) == errno.EINPROGRESS
    assert until(lambda: len(laptop.services.services) == 1)
    laptop.call(lambda: laptop.services.services[0].connection.refuse(Refusal.UNREACHABLE))
    assert until(lambda: connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH)
    connection.close()


def test_a_late_accept_completes_the_handshake_at_once(laptop: Laptop) -> None:
    with laptop.socket(HOST4) as connection:
        connection.setblocking(False)
        assert connection.connect_ex((HOST4, PENDING)) == errno.EINPROGRESS
        assert until(lambda: len(laptop.services.services) == 1)
        time.sleep(0.05)
        start = time.monotonic()
        laptop.call(laptop.services.services[0].connection.accept)
        connection.settimeout(5)
        while connection.connect_ex((HOST4, PENDING)) not in (0, errno.EISCONN):
            assert time.monotonic() - start < 0.5


def test_the_far_side_ends_first(laptop: Laptop) -> None:
    with laptop.connect(HOST4, GREETING) as connection:
        assert receive_all(connection) == b"hello"
        service = laptop.services.services[-1]
        connection.sendall(b"still here")
        assert until(lambda: service.received == 10)
        assert not service.eof
        connection.shutdown(socket.SHUT_WR)
        assert until(lambda: service.closed == [None])
        assert service.eof


def test_the_laptop_ends_first(laptop: Laptop) -> None:
    with laptop.connect(HOST4, SOURCE) as connection:
        connection.sendall(b"3000000")
        connection.shutdown(socket.SHUT_WR)
        assert len(receive_all(connection)) == 3000000
    assert until(lambda: laptop.services.services[-1].closed == [None])


def test_the_far_side_resets(laptop: Laptop) -> None:
    with laptop.connect(HOST4, RESET) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert laptop.services.services[-1].closed == []


def test_a_reset_from_elsewhere_goes_out_at_once(laptop: Laptop) -> None:
    with laptop.connect(HOST4, ECHO) as connection:
        laptop.call(laptop.services.services[-1].connection.reset)
        start = time.monotonic()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert time.monotonic() - start < 2.0


def test_the_laptop_resets(laptop: Laptop) -> None:
    connection = laptop.connect(HOST4, ECHO)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert until(lambda: laptop.services.services[-1].closed == [Broken.RESET])
    assert laptop.stack.half_open == 0


def test_a_stalled_service_stops_the_laptop_and_loses_nothing(laptop: Laptop) -> None:
    data = random.Random(5).randbytes(3_000_000)
    with laptop.connect(HOST4, STALL) as connection:
        sender = send_and_end(connection, data)
        service = laptop.services.services[-1]
        time.sleep(1.0)
        held = service.received
        assert 0 < held <= 64 * 1024 + 32, "never more than the base allowance while nothing is consumed"
        time.sleep(0.3)
        assert service.received == held
        laptop.call(laptop.services.release)
        start = time.monotonic()
        assert until(lambda: service.closed == [None], 10)
        assert time.monotonic() - start < 2.0, "the window update must not wait for a probe"
        assert service.received == len(data)
        sender.join(5)


def test_a_stalled_laptop_stops_the_service_and_loses_nothing(laptop: Laptop) -> None:
    size = 20_000_000
    with laptop.connect(HOST4, SOURCE) as connection:
        connection.sendall(str(size).encode())
        time.sleep(1.0)
        start = time.monotonic()
        left = size
        while left:
            left -= len(connection.recv(1 << 18))
        assert time.monotonic() - start < 5.0


def test_a_trickling_reader_gets_everything(laptop: Laptop) -> None:
    with laptop.socket(HOST4) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((HOST4, SOURCE))
        connection.sendall(b"400000")
        left = 400000
        while left:
            left -= len(connection.recv(700))


def test_an_idle_connection_is_probed_and_lives() -> None:
    limits = Limits(keepalive_idle=0.05, keepalive_interval=0.05)
    with Laptop(limits=limits) as laptop, laptop.connect(HOST4, ECHO) as connection:
        time.sleep(1)  # an hour has six probes; here are twenty, and ten without an answer would end it
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"


def test_both_ends_close_at_once(laptop: Laptop) -> None:
    for _ in range(50):
        with laptop.connect(HOST4, ECHO) as connection:
            service = laptop.services.services[-1]
            closer = threading.Thread(target=laptop.call, args=(service.connection.send_eof,))
            closer.start()
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
            closer.join(5)
        assert until_closed(service)


def test_many_connections_at_once(laptop: Laptop) -> None:
    connections = [laptop.connect(HOST4 if n & 1 else HOST6, ECHO) for n in range(400)]
    for n, connection in enumerate(connections):
        connection.sendall(b"%d" % n * 100)
    for n, connection in enumerate(connections):
        want = b"%d" % n * 100
        got = b""
        while len(got) < len(want):
            got += connection.recv(4096)
        assert got == want
        connection.close()
    assert until(lambda: laptop.stack.tcp_connections == 0)


def test_a_port_can_be_used_again_at_once(laptop: Laptop) -> None:
    port = 20000  # below those that the kernel gives to the other tests' connections
    for _ in range(5):
        with laptop.socket(HOST4) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("10.99.0.1", port))
            connection.connect((HOST4, GREETING))
            assert receive_all(connection) == b"hello"
            # The service ended first, so TIME-WAIT is on the stack's side.
            connection.shutdown(socket.SHUT_WR)
            service = laptop.services.services[-1]
            assert until_closed(service)


@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
def test_other_mtus(mtu: int) -> None:
    with Laptop(mtu=mtu) as laptop:
        for host in (HOST4, HOST6):
            data = random.Random(mtu).randbytes(2_000_000)
            with laptop.connect(host, ECHO) as connection:
                assert echo(connection, data) == data


@pytest.mark.parametrize("seed", range(3))
def test_loss_reordering_and_repetition(seed: int) -> None:
    faulty: list[FaultyDevice] = []

    def wrap(device: Device) -> FaultyDevice:
        faulty.append(FaultyDevice(device, seed, loss=0.01, reorder=0.02, duplicate=0.01))
        return faulty[0]

    data = random.Random(seed).randbytes(5_000_000)
    with Laptop(wrap=wrap) as laptop:
        for host in (HOST4, HOST6):
            with laptop.connect(host, ECHO) as connection:
                assert echo(connection, data) == data
        assert until(lambda: laptop.stack.tcp_connections == 0, 20)
    assert faulty[0].faults > 0


def test_a_syn_flood_is_bounded() -> None:
    limits = Limits(half_open=50)
    with Laptop(limits=limits) as laptop:
        flood = []
        for _ in range(200):
            connection = laptop.socket(HOST4)
            connection.setblocking(False)
            connection.connect_ex((HOST4, PENDING))
            flood.append(connection)
        assert until(lambda: laptop.stack.dropped_syns >= 150)
        assert laptop.stack.half_open == 50
        established = [service.connection for service in laptop.services.services]
        assert len(established) == 50
        for connection in flood:
            connection.close()  # or the kernel would repeat those that were dropped
        for pending in established:
            laptop.call(partial(pending.refuse, Refusal.REFUSED))
        assert laptop.stack.half_open == 0
        with laptop.connect(HOST4, ECHO) as connection:
            assert echo(connection, b"alive") == b"alive"
