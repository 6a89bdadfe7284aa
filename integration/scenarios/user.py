"""A person at a laptop: runs tpctl and other programs, and says what was expected when something else comes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from integration.cluster.laptop import Laptop

# Without a timeout of Python's: that polls, and Linux can report a connection that an ICMP message has just ended as
# writable with no error yet, which looks like success.
_DIAL = """
import errno, socket, sys, time
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    begun = time.monotonic()
    try:
        socket.create_connection((host, int(port))).close()
        how = "OPENED"
    except OSError as error:
        how = errno.errorcode.get(error.errno) or repr(error).replace(" ", "_")
    print(how, time.monotonic() - begun)
"""

ERROR = "tpctl: error: "


class User:
    """Commands on one laptop, as one of its accounts."""

    def __init__(self, laptop: Laptop, account: str = "dev") -> None:
        self.laptop = laptop
        self.account = account

    @property
    def context(self) -> str:
        """Of the kubeconfig."""
        document = json.loads(self.laptop.path("/home/dev/.kube/config").read_text())
        return str(document["current-context"])

    def run(
        self, *argv: str, timeout: float = 30, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, whatever its status."""
        return self.laptop.run(argv, user=self.account, timeout=timeout, env=env)

    def ok(self, *argv: str, timeout: float = 30, env: Mapping[str, str] | None = None) -> str:
        """Run a program that must succeed; its standard output."""
        done = self.run(*argv, timeout=timeout, env=env)
        assert done.returncode == 0, f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def tpctl(self, *arguments: str, timeout: float = 60) -> str:
        """Run tpctl, which must succeed."""
        return self.ok("tpctl", *arguments, timeout=timeout)

    def json(self, *arguments: str, timeout: float = 60) -> Any:
        """Run tpctl with `--output json`, which must succeed; the object."""
        return json.loads(self.tpctl(*arguments, "--output", "json", timeout=timeout))

    def refused(self, *arguments: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> str:
        """Run tpctl, which must fail with status 1, nothing on standard output and one error; its sentence."""
        done = self.run("tpctl", *arguments, timeout=timeout, env=env)
        said = f"tpctl {' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        assert (done.returncode, done.stdout) == (1, ""), said
        lines = done.stderr.splitlines()
        assert all(line.startswith("tpctl: ") for line in lines), said  # progress comes before it
        errors = [line for line in lines if line.startswith(ERROR)]
        assert errors == lines[-1:], said
        return errors[0].removeprefix(ERROR)

    def curl(self, url: str, *options: str, timeout: float = 20) -> str:
        """The body of an HTTP answer."""
        return self.ok("curl", "-sS", "--fail", "--max-time", str(timeout - 2), *options, url, timeout=timeout)

    def start_daemon(self) -> None:
        """Start the daemon where none runs."""
        if self.laptop.run(["test", "-S", "/run/tpd/tpd.sock"], user="root").returncode:
            self.laptop.run(["tpctl", "daemon", "start"], user="root", timeout=20, check=True)

    def connect(self, namespace: str, *arguments: str) -> None:
        """Start the daemon where none runs, and connect."""
        self.start_daemon()
        self.tpctl("connect", "-n", namespace, *arguments)

    def python(self, source: str, *arguments: str, timeout: float = 60) -> str:
        """Run a Python program, which must succeed; its standard output."""
        return self.ok("python3", "-c", source, *arguments, timeout=timeout)

    def dial(self, *targets: str) -> list[tuple[str, float]]:
        """What connecting to each HOST:PORT gives: OPENED or the name of the error, and how many seconds it took."""
        lines = (line.split() for line in self.python(_DIAL, *targets).splitlines())
        return [(how, float(seconds)) for how, seconds in lines]


def eventually(what: str, ready: Callable[[], Any], *, timeout: float = 20, every: float = 0.1) -> Any:
    """Poll until `ready()` is true (an AssertionError counts as not yet); its value."""
    deadline = time.monotonic() + timeout
    last: BaseException | None = None
    while True:
        try:
            if found := ready():
                return found
        except AssertionError as error:
            last = error
        assert time.monotonic() < deadline, f"waited {timeout:g} s for {what} in vain ({last})"
        time.sleep(every)


def first_pod(pods: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first pod of a list that is not on its way out."""
    alive: Sequence[Mapping[str, Any]] = [p for p in pods["items"] if not p["metadata"].get("deletionTimestamp")]
    assert alive, "there is no pod"
    return alive[0]
