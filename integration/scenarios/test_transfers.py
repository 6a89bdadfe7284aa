"""Bytes in bulk, many flows at once, stalled readers beside busy ones, half-close, and connections that idle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from subprocess import PIPE, Popen

import pytest

from integration.scenarios.user import User, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

MEGABYTE = 1_000_000
IDLE = 12.0
"""Seconds for which a connection idles at least."""

_CLIENT = """
import hashlib, json, random, socket, struct, time
from concurrent.futures import ThreadPoolExecutor
block = random.Random(5).randbytes(1 << 20)
address = socket.gethostbyname("echo")

def connect():
    return socket.create_connection((address, 7008), timeout=60)

def line(sock):
    text = b""
    while not text.endswith(b"\\n"):
        piece = sock.recv(1000)
        if not piece:
            break
        text += piece
    return text.decode().split()

def upload(size):
    digest = hashlib.sha256()
    with connect() as sock:
        sock.sendall(b"sink %d\\n" % size)
        left = size
        while left:
            piece = memoryview(block)[:left]
            sock.sendall(piece)
            digest.update(piece)
            left -= len(piece)
        return line(sock) == [str(size), digest.hexdigest()]

def download(size):
    digest, left, buffer = hashlib.sha256(), size, bytearray(1 << 18)
    with connect() as sock:
        sock.sendall(b"source %d digest\\n" % size)
        while left:
            got = sock.recv_into(buffer, min(left, len(buffer)))
            if not got:
                return False
            digest.update(memoryview(buffer)[:got])
            left -= got
        return line(sock)[-1] == digest.hexdigest()
"""


_IDLE = """
import socket, sys, time
with socket.create_connection(("echo", 7007), timeout=30) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    print(time.monotonic(), flush=True)
    sys.stdin.readline()
    sock.sendall(b"still here")
    print(sock.recv(100).decode(), flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def idle(person: User) -> Iterator[Popen[str]]:
    """A connection that nobody uses while the other tests run."""
    with person.laptop.popen(["python3", "-c", _IDLE], user=person.account, stdin=PIPE) as process:
        yield process
        process.kill()


def client(person: User, program: str, timeout: float = 60) -> str:
    """Run `program` after the helpers above, on the laptop; what it prints."""
    return person.python(_CLIENT + program, timeout=timeout).strip()


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_three_hundred_megabytes_arrive_unchanged(person: User, direction: str) -> None:
    assert client(person, f"print({direction}({300 * MEGABYTE}))") == "True"


def test_sixty_four_flows_at_once_in_both_directions(person: User) -> None:
    program = f"""
with ThreadPoolExecutor(64) as pool:
    jobs = [pool.submit(upload if n % 2 else download, {2 * MEGABYTE}) for n in range(64)]
    print(sum(job.result() for job in jobs))
"""
    assert client(person, program) == "64"


def test_stalled_readers_do_not_delay_others_and_memory_stays_bounded(
    person: User, record_property: Callable[[str, object], None]
) -> None:
    program = f"""
def flood(sock):
    sock.settimeout(1)
    try:
        while True:
            sock.sendall(block)
    except OSError:
        pass
def busy():
    begun = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        good = sum(pool.map(lambda n: download(100_000) and upload(100_000), range(100)))
    return good, time.monotonic() - begun
alone = busy()
stalled = []
for number in range(64):
    sock = connect()
    sock.sendall(b"source {20 * MEGABYTE}\\n" if number % 2 else b"stall\\n")
    stalled.append(sock)
with ThreadPoolExecutor(32) as pool:
    list(pool.map(flood, stalled[::2]))
beside = busy()
for sock in stalled:  # a reset, so that nothing of them waits for the stalled server
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
print(json.dumps([alone, beside, busy()]))
"""
    worker = person.json("status")["connections"][0]["worker_pid"]
    forget_the_peak = f"echo 5 > /proc/{worker}/clear_refs"
    person.laptop.run(["sh", "-c", forget_the_peak], user="root", check=True)
    (all_alone, alone), (all_beside, beside), (all_after, after) = json.loads(client(person, program, timeout=150))
    status = person.laptop.run(["cat", f"/proc/{worker}/status"], user="root", check=True).stdout
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024
    record_property("peak memory of the worker, MiB", peak)
    assert (all_alone, all_beside, all_after) == (100, 100, 100)
    assert beside < 2 * max(alone, after) + 1  # both: other work on the machine comes and goes
    assert peak < 300


def test_half_close_from_here_keeps_the_answer_coming(person: User) -> None:
    program = """
with connect() as sock:
    sock.sendall(b"sink\\n" + block)
    sock.shutdown(socket.SHUT_WR)
    print(line(sock) == [str(len(block)), hashlib.sha256(block).hexdigest()])
"""
    assert client(person, program) == "True"


def test_half_close_from_there_keeps_our_bytes_going(person: User) -> None:
    program = """
with connect() as sock:
    sock.sendall(b"drain half\\n")
    ended = sock.recv(1) == b""
    for _ in range(5):
        sock.sendall(block)
        time.sleep(0.05)
for _ in range(50):
    with connect() as sock:
        sock.sendall(b"result half\\n")
        found = line(sock)
    if found != ["none"]:
        break
    time.sleep(0.1)
print(ended and found == [str(5 * len(block)), hashlib.sha256(block * 5).hexdigest()])
"""
    assert client(person, program) == "True"


def test_an_idle_connection_lives_on_keepalive(idle: Popen[str]) -> None:
    """Probes of the program's own kernel every second instead of every hour or two; three unanswered would end it."""
    assert idle.stdin
    assert idle.stdout
    opened = float(idle.stdout.readline())
    time.sleep(max(0.0, opened + IDLE - time.monotonic()))
    idle.stdin.write("\n")
    idle.stdin.flush()
    assert idle.stdout.readline() == "still here\n"


def test_flows_end_when_their_connections_do(person: User) -> None:
    eventually("flows to end", lambda: person.json("status")["connections"][0].get("flows", 0) < 5, timeout=40)
