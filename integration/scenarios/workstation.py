"""A laptop with tpd on it, and somebody who types commands."""

from __future__ import annotations

import subprocess

from integration.cluster.laptop import Laptop
from integration.cluster.places import REPOSITORY
from integration.cluster.processes import RoomProcess
from integration.scenarios.waiting import eventually

ANSWER = "the laptop"
ECHO = REPOSITORY / "integration" / "cluster" / "workloads" / "echo.py"


class Workstation:
    """Starts tpd; `end` stops everything it started."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop
        self._servers: list[RoomProcess] = []
        laptop.run(["tpctl", "daemon", "start"], user="root", check=True)

    def tpctl(self, *words: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run tpctl as the laptop's user."""
        return self.laptop.run(["tpctl", *words], timeout=timeout, check=check)

    def serve(self, answer: str = ANSWER) -> RoomProcess:
        """The local process: HTTP on 8080, TCP and UDP echo on 7007, on the loopback address; waits until it listens."""
        server = self.laptop.popen(
            ["python3", "-I", ECHO, "--host", "127.0.0.1", "--answer", answer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._servers.append(server)
        eventually(lambda: self.laptop.run(["curl", "-s", "http://127.0.0.1:8080/healthz"]).returncode == 0)
        return server

    def end(self) -> None:
        """Give back what is engaged, stop tpd and the local processes."""
        self.laptop.run(["tpctl", "quit", "-s"], user="root", timeout=30)
        for server in self._servers:
            if server.poll() is None:
                server.kill()
            server.wait(5)
