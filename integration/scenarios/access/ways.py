"""The three ways to somebody's port: a port-forward, one's own tunnel, another pod."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.cluster.places import REPOSITORY
from integration.scenarios.access import client
from integration.scenarios.access.client import Attempt, Outcome

MODULE = "integration.scenarios.access.client"
LONGEST = 60.0
"""Seconds for all attempts of one call; each has a limit of its own."""


@dataclass(frozen=True)
class Peer:
    """A port of a pod of ours, and the name in its certificate."""

    namespace: str
    pod: str
    address: str
    port: int
    expected: str


class Way(Protocol):
    """Makes attempts at a peer, as somebody who has this way to it."""

    def attempts(self, peer: Peer, attempts: Sequence[Attempt]) -> list[Outcome]:
        """The outcome of each."""


def _work(target: str, peer: Peer, attempts: Sequence[Attempt]) -> str:
    return json.dumps({"target": target, "attempts": [{"expected": peer.expected, **each} for each in attempts]})


def _outcomes(output: str) -> list[Outcome]:
    result: list[Outcome] = json.loads(output)
    return result


@dataclass(frozen=True)
class Forward:
    """`kubectl port-forward`, as a user who may, from the machine itself."""

    cluster: Cluster
    user: str

    def attempts(self, peer: Peer, attempts: Sequence[Attempt]) -> list[Outcome]:
        with self._running(peer, attempts) as process:
            return outcomes_of(process)

    @contextmanager
    def holding(self, peer: Peer, attempt: Attempt) -> Iterator[subprocess.Popen[str]]:
        """While a stream is open that an attempt with `hold` made; its process, for `outcomes_of`."""
        with self._running(peer, [attempt]) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "answered\n"
            yield process

    @contextmanager
    def _running(self, peer: Peer, attempts: Sequence[Attempt]) -> Iterator[subprocess.Popen[str]]:
        argv, pipe = [sys.executable, "-m", MODULE], subprocess.PIPE
        with (
            self._opened(peer) as port,
            subprocess.Popen(argv, cwd=REPOSITORY, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process,
        ):
            try:
                assert process.stdin is not None
                process.stdin.write(_work(f"127.0.0.1:{port}", peer, attempts))
                process.stdin.close()
                process.stdin = None  # else communicate() would close it again
                yield process
            finally:
                process.kill()

    @contextmanager
    def _opened(self, peer: Peer) -> Iterator[int]:
        argv = [
            *(self.cluster.kubectl_program(), f"--kubeconfig={self.cluster.admin_kubeconfig}", f"--as={self.user}"),
            *("port-forward", "-n", peer.namespace, f"pod/{peer.pod}", f":{peer.port}", "--address=127.0.0.1"),
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()  # Forwarding from 127.0.0.1:PORT -> 8443
                assert " -> " in line, f"kubectl port-forward said {line!r}"
                yield int(line.split(" -> ")[0].rpartition(":")[2])
            finally:
                process.kill()


def outcomes_of(process: subprocess.Popen[str]) -> list[Outcome]:
    """What a client says when it has ended."""
    output, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, errors
    return _outcomes(output)


@dataclass(frozen=True)
class Tunnel:
    """From a connected laptop, to the pod's own address: through the manager."""

    laptop: Laptop

    def attempts(self, peer: Peer, attempts: Sequence[Attempt]) -> list[Outcome]:
        target = f"{peer.address}:{peer.port}"
        done = self.laptop.run(["python3", "-m", MODULE], stdin=_work(target, peer, attempts), timeout=LONGEST)
        assert done.returncode == 0, done.stderr
        return _outcomes(done.stdout)


@dataclass(frozen=True)
class Pod:
    """From another pod, to the pod's own address."""

    cluster: Cluster
    namespace: str
    name: str

    def attempts(self, peer: Peer, attempts: Sequence[Attempt]) -> list[Outcome]:
        """With the client as the program's text: the image has what it imports."""
        source = Path(client.__file__).read_text()
        words = (f"--namespace={self.namespace}", "exec", "-i", self.name, "--", "python3", "-I", "-c", source)
        return _outcomes(self.cluster.kubectl(*words, stdin=_work(f"{peer.address}:{peer.port}", peer, attempts)))
