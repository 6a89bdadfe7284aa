"""Workloads to engage, a pod from which they are called, and the local process that takes their place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from integration.cluster.cluster import Cluster
from integration.cluster.places import REPOSITORY
from integration.cluster.services import wait_for_services
from integration.scenarios.user import User, eventually, first_pod
from integration.scenarios.workloads import get, rolled_out

ORIGINAL = "the original"
LAPTOP = "the laptop"

_GET = """
import json, sys, time, urllib.request
began = time.monotonic()
try:
    with urllib.request.urlopen(sys.argv[1], timeout=10) as response:
        result = {"answer": json.load(response)["answer"]}
except OSError as error:
    result = {"error": type(getattr(error, "reason", error)).__name__}
print(json.dumps({**result, "seconds": time.monotonic() - began}))
"""
_ECHO = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
with socket.socket(socket.AF_INET, kind) as s:
    s.settimeout(10)
    s.connect((sys.argv[2], int(sys.argv[3])))
    s.send(sys.argv[4].encode())
    print(s.recv(65535).decode())
"""


@dataclass(frozen=True)
class Call:
    """What became of a GET from another pod: the server's answer, or the name of the error."""

    answer: str | None
    error: str | None
    seconds: float


class Apps:
    """Workloads in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._applying = Lock()

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl in the namespace, as administrator."""
        return self.cluster.kubectl(f"--namespace={self.namespace}", *words, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create the objects; one at a time, for `kubectl apply` fails when somebody else creates the same one."""
        with self._applying:
            self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def deploy(self, name: str, **app: Any) -> None:
        """A deployment of one pod with the containers `app` (the test image and the given fields) and `side`, a service
        for the ports of `app`, and a pod `caller`; waits until all are ready and the service leads there."""
        image = {"image": self.cluster.image("test"), "imagePullPolicy": "IfNotPresent"}
        labels = {"app": name}
        containers = [
            {"name": "app", **image, **app},
            {"name": "side", **image, "command": ["sleep", "infinity"]},
        ]
        objects: list[dict[str, Any]] = [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers},
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "caller"},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "caller", **image}]},
            },
        ]
        ports = [
            {"name": port["name"], "port": port["containerPort"], "protocol": port.get("protocol", "TCP")}
            for port in app.get("ports", ())
        ]
        if ports:
            objects.append(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name},
                    "spec": {"selector": labels, "ports": ports},
                }
            )
        self.apply(*objects)
        rolled_out(self.cluster, self.namespace, name)
        self.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=30s")
        wait_for_services(self.cluster, self.namespace, [name] if ports else [])

    def pod(self, name: str) -> Any:
        """The pod of the deployment that is not on its way out."""
        look = ("pods", "-n", self.namespace, "-l", f"app={name}")
        return eventually(f"a pod of {name}", lambda: first_pod(get(self.cluster, *look)))

    def containers(self, name: str) -> list[str]:
        """Its containers, in order."""
        return [container["name"] for container in self.pod(name)["spec"]["containers"]]

    def get(self, url: str) -> Call:
        """GET from the pod `caller`."""
        result = json.loads(self.kubectl("exec", "caller", "--", "python3", "-c", _GET, url))
        return Call(result.get("answer"), result.get("error"), result["seconds"])

    def echo(self, transport: str, host: str, port: int, text: str) -> str:
        """Send a text from the pod `caller` (tcp or udp); what comes back."""
        return self.kubectl("exec", "caller", "--", "python3", "-c", _ECHO, transport, host, str(port), text).strip()

    def answers(self, url: str, answer: str, *, within: float = 20) -> None:
        """Wait until a GET from the pod `caller` gives this answer."""
        eventually(f"the answer of {answer}", lambda: self.get(url).answer == answer, timeout=within)


@contextmanager
def serving(user: User, answer: str = LAPTOP) -> Iterator[None]:
    """A process on the laptop: HTTP on 8080, TCP and UDP echo on 7007, on the loopback address."""
    echo = REPOSITORY / "integration" / "cluster" / "workloads" / "echo.py"
    argv = ["python3", "-I", str(echo), "--host", "127.0.0.1", "--answer", answer]
    with user.laptop.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            eventually("the local process", lambda: user.curl("http://127.0.0.1:8080/healthz"))
            yield
        finally:
            server.kill()
