"""UDP and ping against the Linux kernel's own, in a network namespace of the test's."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from tunnel.stack import Limits
from tunnel.stack.checksum import checksum
from tunnel.testing.laptop import HOST4, HOST6, Laptop
from tunnel.testing.services import ECHO
from tunnel.tun.tests.test_kernel_tcp import until

pytestmark = pytest.mark.root

HOSTS = pytest.mark.parametrize("host", [HOST4, HOST6])
MTUS = pytest.mark.parametrize("mtu", [1280, 1500, 65535])
_UDP_SEGMENT = 103
"""linux/udp.h"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Laptop]:
    with Laptop() as laptop:
        yield laptop


@MTUS
def test_datagrams_of_every_size(mtu: int) -> None:
    with Laptop(mtu=mtu) as laptop:
        for host in (HOST4, HOST6):
            with laptop.socket(host, socket.SOCK_DGRAM) as client:
                client.connect((host, ECHO))
                for size in (0, 1, mtu - 60, mtu - 27, 9000, 65507):
                    data = random.Random(size).randbytes(min(size, 65507))
                    client.send(data)
                    assert client.recv(1 << 16) == data, size
        assert laptop.stack.udp_associations == 2


@HOSTS
def test_the_source_is_the_destination_that_was_asked(shared: Laptop, host: str) -> None:
    with shared.socket(host, socket.SOCK_DGRAM) as client:
        client.sendto(b"question", (host, 4242))
        answer, source = client.recvfrom(100)
        assert (answer, source[:2]) == (b"question", (host, 4242))


@HOSTS
def test_a_refusal_is_a_refusal(shared: Laptop, host: str) -> None:
    with shared.socket(host, socket.SOCK_DGRAM) as client:
        client.connect((host, 1))
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


@HOSTS
def test_a_closed_socket_ends_its_association(shared: Laptop, host: str) -> None:
    with shared.socket(host, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (host, ECHO))
        client.recv(10)
    association = shared.services.associations[-1]
    assert not association.expired
    shared.call(lambda: association.association.send(b"too late"))
    assert until(lambda: association.expired)


def test_idle_associations_expire() -> None:
    with Laptop(limits=Limits(udp_idle=0.3)) as laptop, laptop.socket(HOST4, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (HOST4, ECHO))
        client.recv(10)
        assert laptop.stack.udp_associations == 1
        assert until(lambda: laptop.services.associations[0].expired)
        assert laptop.stack.udp_associations == 0
        client.sendto(b"again", (HOST4, ECHO))
        assert client.recv(10) == b"again"


@HOSTS
def test_segmentation_offload_of_datagrams(shared: Laptop, host: str) -> None:
    with shared.socket(host, socket.SOCK_DGRAM) as client:
        client.connect((host, ECHO))
        client.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1000)
        data = random.Random(1).randbytes(10_500)
        client.send(data)
        got = [client.recv(1 << 16) for _ in range(11)]
        assert b"".join(got) == data
        assert {len(part) for part in got} == {1000, 500}


def test_a_thousand_associations(shared: Laptop) -> None:
    clients = [shared.socket(HOST4, socket.SOCK_DGRAM) for _ in range(300)]
    for n, client in enumerate(clients):
        client.sendto(b"%d" % n, (HOST4, ECHO))
    for n, client in enumerate(clients):
        assert client.recv(10) == b"%d" % n
        client.close()


def _ping(laptop: Laptop, host: str, size: int) -> bytes | None:
    v6 = ":" in host
    family = socket.AF_INET6 if v6 else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    kind = 128 if v6 else 8
    body = bytes(i & 255 for i in range(size))
    head = struct.pack("!BBHHH", kind, 0, 0, 77, 1)
    check = 0 if v6 else checksum((head, body))
    with laptop.namespace.run(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as client:
        client.settimeout(0.5)
        client.sendto(struct.pack("!BBHHH", kind, 0, check, 77, 1) + body, (host, 0))
        while True:
            try:
                answer = client.recv(1 << 16)
            except TimeoutError:
                return None
            message = answer if v6 else answer[20:]
            if message[0] == (129 if v6 else 0):
                assert message[4:8] == head[4:]
                return message[8:]


@pytest.mark.parametrize("size", [0, 1, 56, 9001])
def test_pings(shared: Laptop, size: int) -> None:
    for host in (HOST4, HOST6):
        assert _ping(shared, host, size) == bytes(i & 255 for i in range(size))


def test_what_does_not_answer_is_silent(shared: Laptop) -> None:
    assert _ping(shared, "10.99.1.2", 10) is None


def test_a_ping_in_fragments() -> None:
    with Laptop(mtu=1500) as laptop:
        assert _ping(laptop, HOST4, 5000) == bytes(i & 255 for i in range(5000))
