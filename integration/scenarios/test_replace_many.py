"""Many callers of a replaced container that has little memory."""

from __future__ import annotations

import json

import pytest

from integration.scenarios.apps import Apps, serving
from integration.scenarios.conftest import UserFactory

pytestmark = pytest.mark.cluster

PORTS = [{"name": "echo", "containerPort": 7007}, {"name": "bulk", "containerPort": 7008}]

# A thousand connections that live, beside some whose callers send or receive and whose other ends stand still.
_CALLS = """
import json, resource, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
address = socket.gethostbyname("echo")
idle, stalled = int(sys.argv[1]), int(sys.argv[2])

def echo(sock):
    sock.sendall(b"x")
    return sock.recv(1) == b"x"

def call(_):
    sock = socket.create_connection((address, 7007), timeout=20)
    return sock if echo(sock) else None

def flood(number):
    sock = socket.create_connection((address, 7008), timeout=20)
    sock.sendall(b"source 20000000\\n" if number % 2 else b"stall\\n")
    sock.settimeout(0.5)
    try:
        while number % 2 == 0:
            sock.sendall(bytes(1 << 20))
    except TimeoutError:
        pass
    return sock

with ThreadPoolExecutor(32) as pool:
    held = list(pool.map(call, range(idle)))
    still = list(pool.map(flood, range(stalled)))
    time.sleep(1)
    print(json.dumps([sum(map(bool, held)), sum(pool.map(echo, held))]))
"""


def test_a_thousand_callers_of_a_container_with_little_memory(apps: Apps, namespace: str, people: UserFactory) -> None:
    apps.deploy("echo", ports=PORTS, resources={"limits": {"memory": "32Mi"}})
    work = people()
    work.connect(namespace)
    work.tpctl("replace", "echo", "-c", "app")
    pod = apps.pod("echo")
    limits = [container.get("resources", {}).get("limits") for container in pod["spec"]["containers"]]
    assert limits[0] == {"memory": "128Mi"}
    with serving(work):
        said = apps.kubectl("exec", "caller", "--", "python3", "-c", _CALLS, "1000", "64")
    assert json.loads(said) == [1000, 1000]
    after = apps.pod("echo")
    assert [status["restartCount"] for status in after["status"]["containerStatuses"]] == [0, 0]
