"""Datagrams to a service, of every size that the cluster's network carries."""

from __future__ import annotations

import json
import time

import pytest

from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User, eventually

pytestmark = pytest.mark.cluster

_ECHO = """
import json, random, socket, sys
host, port, sizes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
wrong = []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((host, port))
    sock.settimeout(2)
    for size in sizes:
        sent = random.Random(size).randbytes(size)
        for attempt in range(3):
            sock.send(sent)
            try:
                if sock.recv(65536) == sent:
                    break
            except TimeoutError:
                continue
        else:
            wrong.append(size)
print(json.dumps(wrong))
"""


@pytest.mark.parametrize("sizes", [[1, 2, 100, 1400, 1472, 1473, 2000], [9000, 16_000, 40_000, 60_000]])
def test_datagrams_come_back_whole(person: User, sizes: list[int]) -> None:
    assert json.loads(person.python(_ECHO, "echo", "7007", json.dumps(sizes))) == []


def test_many_associations_at_once(person: User) -> None:
    source = """
import socket
from concurrent.futures import ThreadPoolExecutor
address = socket.gethostbyname("echo")
def ask(number):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        for attempt in range(3):
            sock.sendto(b"%d" % number, (address, 7007))
            try:
                return sock.recv(100) == b"%d" % number
            except TimeoutError:
                continue
    return False
with ThreadPoolExecutor(20) as pool:
    print(sum(pool.map(ask, range(200))))
"""
    assert person.python(source) == "200\n"


def test_a_port_where_nobody_listens_is_unreachable(person: User) -> None:
    source = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((socket.gethostbyname("echo-headless"), 4))
    sock.settimeout(5)
    try:
        for _ in range(3):
            sock.send(b"?")
            sock.recv(10)
    except OSError as error:
        print(type(error).__name__)
"""
    assert person.python(source) == "ConnectionRefusedError\n"


def test_an_association_expires(demo: str, people: UserFactory) -> None:
    person = people()
    person.connect(demo)

    def flows() -> int:
        return int(person.json("status")["connections"][0].get("flows", 0))

    assert flows() == 0
    begun = time.monotonic()
    assert json.loads(person.python(_ECHO, "echo", "7007", "[10]")) == []
    assert flows() == 1
    eventually("the association to expire", lambda: flows() == 0, timeout=35, every=1)
    assert time.monotonic() - begun > 25
