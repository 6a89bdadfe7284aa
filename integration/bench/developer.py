"""One laptop of the benchmark: its tpctl, its kubectl, its local workload, and the processes that carry its traffic."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from integration.bench import processes, server
from integration.bench.workload import NAMESPACE, PORT, REPLACED, STAYS
from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.cluster.room import Room

LOCAL_PORT = 18080
COMMAND_LIMIT = 120.0


class CommandFailed(Exception):
    """A command of the laptop did not succeed; the text is its own last words."""


def many_connections(room: Room) -> None:
    """Let the client's own TIME_WAIT (60 s for each of 28,000 ports) not be what limits new connections."""
    room.script("cd /proc/sys/net/ipv4; echo 1 > tcp_tw_reuse; echo 16384 65535 > ip_local_port_range")


class Developer:
    """Drives one laptop. Use as a context manager: at the end daemon and laptop are gone."""

    def __init__(self, cluster: Cluster, rtt_ms: int) -> None:
        self.cluster = cluster
        # At 0 ms there is no program on the line at all.
        self.laptop = Laptop.create(cluster, f"bench-{rtt_ms}-{os.getpid()}", rtt=rtt_ms / 1000 if rtt_ms else None)
        self._children: list[subprocess.Popen[str]] = []
        many_connections(self.laptop.room)

    def __enter__(self) -> Developer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(CommandFailed):
            self.tpctl("quit", "-s", user="root")
        for child in self._children:
            child.kill()
            child.communicate()
        self.laptop.delete()

    def tpctl(self, *arguments: str, user: str = "dev") -> float:
        """Run tpctl to its end; the seconds it took. Raises CommandFailed."""
        started = time.monotonic()
        try:
            done = self.laptop.run(["tpctl", *arguments], user=user, cwd="/tmp", timeout=COMMAND_LIMIT)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"tpctl {' '.join(arguments)} took more than {COMMAND_LIMIT:g} s") from error
        elapsed = time.monotonic() - started
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise CommandFailed(f"tpctl {' '.join(arguments)}: {words[-1]}")
        return elapsed

    def install(self) -> None:
        """Install the traffic-manager, or bring the one that is there to this version."""
        try:
            self.tpctl("helm", "install")
        except CommandFailed:
            self.tpctl("helm", "upgrade")
            # The images may be new under their old names.
            for words in (("restart",), ("status", "--timeout=60s")):
                self.cluster.kubectl("-n", "tpctl-system", "rollout", *words, "deployment/traffic-manager")

    def connect(self) -> float:
        """`tpctl connect` with the daemon running; seconds."""
        return self.tpctl("connect", "-n", NAMESPACE)

    def replace(self) -> float:
        """Replace the container by the laptop's workload; seconds."""
        return self.tpctl("replace", REPLACED, "--port", f"{LOCAL_PORT}:{PORT}")

    def leave(self) -> float:
        """Give the container back; seconds."""
        return self.tpctl("leave", REPLACED)

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command in the laptop, with pipes."""
        return self.laptop.popen(command, stdin=subprocess.PIPE)

    def start_workload(self) -> None:
        """Run the server on the laptop's loopback address, for the cluster to reach through a replace."""
        command = [sys.executable, str(Path(server.__file__)), str(LOCAL_PORT), "127.0.0.1"]
        self._keep(command, re.compile(r"\d+"))

    @contextlib.contextmanager
    def port_forward(self) -> Iterator[int]:
        """`kubectl port-forward` to the workload; yields the port on the laptop's loopback address."""
        command = ["kubectl", "-n", NAMESPACE, "port-forward", f"service/{STAYS}", f":{PORT}"]
        process, line = self._keep(command, re.compile(r"127\.0\.0\.1:(\d+) ->"))
        try:
            found = re.search(r":(\d+) ->", line)
            assert found is not None
            yield int(found[1])
        finally:
            process.kill()
            process.communicate()
            self._children.remove(process)

    def carriers(self) -> dict[str, list[int]]:
        """Pids of tpctl's processes and of those of the cluster that carry its bytes, by name."""
        local = set(self.laptop.processes())
        node = processes.descendants(self.cluster.node.pid)
        found = {
            "worker": processes.find(local, lambda words: "tpd.session" in words),
            "tpd": processes.find(local, lambda words: "tpd.supervisor.main" in words),
            "manager": processes.find(node, lambda words: "manager.main" in words),
            "agent": processes.find(node, lambda words: "agent.main" in words),
            **self._cluster(node),
        }
        return {name: pids for name, pids in found.items() if pids}

    def kubectl_carriers(self) -> dict[str, list[int]]:
        """The same for `kubectl port-forward`."""
        local = set(self.laptop.processes())
        forward = processes.find(local, lambda words: words[0].endswith("kubectl") and "port-forward" in words)
        node = processes.descendants(self.cluster.node.pid)
        return {"kubectl": forward, **self._cluster(node)}

    @staticmethod
    def _cluster(node: set[int]) -> dict[str, list[int]]:
        """The cluster's own programs on the way, and the line that delays."""

        def named(program: str) -> list[int]:
            return processes.find(node, lambda words: words[0].rpartition("/")[2] == program)

        line = processes.find(node, lambda words: any(word.endswith("line.py") for word in words))
        return {name: named(name) for name in ("kube-apiserver", "kubelet", "containerd")} | {"line": line}

    def _keep(self, command: Sequence[str], ready: re.Pattern[str]) -> tuple[subprocess.Popen[str], str]:
        """Start a program that runs on; returns when it has printed a line that matches."""
        process = self.laptop.popen(command, stderr=subprocess.STDOUT)
        self._children.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not ready.search(line):
            raise CommandFailed(f"{command[0]}: {line.strip() or 'ended without a word'}")
        return process, line
