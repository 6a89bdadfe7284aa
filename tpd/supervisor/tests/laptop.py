"""A laptop for tests: a network and mount namespace of its own, with a link, a default route and a resolv.conf."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tunnel import control
from tunnel.proto import daemon_pb2 as pb
from tunnel.version import VERSION

RESOLV_CONF = "# written by the test\nnameserver 192.168.77.53\nsearch corp.example\noptions ndots:1\n"

_SETUP = """
set -e
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
ip link add eth0 type veth peer name far
ip addr add 192.168.77.2/24 dev eth0
ip link set eth0 up
ip link set far up
ip route add default via 192.168.77.1
mount --bind "$FOLDER/etc" /etc  # a copy: nothing that the tests do reaches the machine's own files
if [ -n "$BIND" ]; then mount --bind "$FOLDER/resolv.conf" /etc/resolv.conf; else cp "$FOLDER/resolv.conf" /etc/; fi
if [ -n "$PYTHON" ]; then  # other users must be able to run the interpreter
  mkdir -p "$FOLDER/python"
  mount --bind "$PYTHON" "$FOLDER/python"
  mount -t tmpfs -o mode=755 tmpfs /root
  mkdir -p "$PYTHON"
  mount --bind "$FOLDER/python" "$PYTHON"
fi
echo up
exec sleep 300
"""


class Laptop:
    def __init__(self, folder: Path, holder: int) -> None:
        self.folder = folder
        self.holder = holder
        self.resolv_conf = folder / "resolv.conf"
        self.socket = folder / "run" / "tpd.sock"
        self.state = folder / "state"
        self.log = folder / "tpd.log"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder), "-n", "-m", *arguments]

    def run(self, *arguments: str, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env={**os.environ, **(environment or {})},
        )
        if check and done.returncode:
            raise AssertionError(f"{arguments} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def state_text(self) -> str:
        """Everything of the host that must come back, as text."""
        parts = [
            self.run("ip", "rule"),
            self.run("ip", "-6", "rule"),
            self.run("ip", "route", "show", "table", "all"),
            self.run("ip", "-6", "route", "show", "table", "all"),
            self.run("ip", "-br", "link"),
            self.run("nft", "list", "ruleset"),
            self.run("cat", "/etc/resolv.conf"),
            self.run("ls", "-lA", "--time-style=+", "/etc"),
        ]
        return "\n----\n".join(parts)

    def daemon_arguments(self, *more: str) -> list[str]:
        return [
            sys.executable,
            "-I",
            "-m",
            "tpd.supervisor.main",
            *("--socket", str(self.socket), "--state-dir", str(self.state), "--log-file", str(self.log)),
            *("--policy", str(self.folder / "policy.yaml"), "--worker", "tpd.supervisor.tests.example_worker"),
            *more,
        ]

    def start_daemon(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """tpd in the foreground, logging to the laptop's log."""
        with open(self.log, "ab") as log:
            daemon = subprocess.Popen(
                self.command(*self.daemon_arguments("--foreground")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self.daemons.append(daemon)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and daemon.poll() is None:
            try:
                self.open().close()
                return daemon
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"tpd does not listen: {self.log.read_text()}")

    def tpctl(self, *arguments: str, status: int = 0) -> str:
        """Run the CLI there; what it printed on both outputs."""
        done = subprocess.run(
            self.command(str(Path(sys.executable).with_name("tpctl")), *arguments),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={
                **os.environ,
                "TPD_SOCKET": str(self.socket),
                "TPD_STATE_DIR": str(self.state),
                "TPD_LOG_FILE": str(self.log),
            },
        )
        text = done.stdout + done.stderr
        if done.returncode != status:
            raise AssertionError(f"tpctl {arguments} ended with {done.returncode}: {text}")
        return text

    def restore(self) -> None:
        self.run(*self.daemon_arguments("--restore"))

    def open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(15)
        try:
            sock.connect(str(self.socket))
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, request: pb.Request) -> tuple[list[pb.Event], pb.Event]:
        """Progress events and the final one."""
        if not request.version:
            request.version = VERSION
        with self.open() as sock:
            control.send(sock, request)
            events: list[pb.Event] = []
            while (event := control.receive(sock, pb.Event)) is not None:
                if event.WhichOneof("event") != "progress":
                    return events, event
                events.append(event)
        raise AssertionError(f"no final event; {self.log.read_text()}")

    def whoami(self) -> dict[str, str]:
        return dict(self.ask(pb.Request(replace=pb.Replace(workload="whoami")))[1].replace.environment)

    def connect(self, host: str = "{}", **values: str) -> pb.Event:
        environment = {"EXAMPLE_HOST": host, "HOME": str(self.folder), "PATH": os.environ["PATH"]}
        return self.ask(pb.Request(connect=pb.Connect(environment=environment, **values)))[1]

    def end(self) -> None:
        for daemon in self.daemons:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGTERM)
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(daemon.pid, signal.SIGKILL)
                    daemon.wait(5)


@contextmanager
def laptop(*, bind: bool = True) -> Iterator[Laptop]:
    """A laptop with a folder of its own that other users may enter. Needs root. `bind`: resolv.conf is a bind mount."""
    with tempfile.TemporaryDirectory(prefix="tpd-laptop-") as folder:
        Path(folder).chmod(0o755)
        with _laptop(Path(folder), bind) as made:
            yield made


@contextmanager
def _laptop(folder: Path, bind: bool) -> Iterator[Laptop]:
    (folder / "resolv.conf").write_text(RESOLV_CONF)
    etc = folder / "etc"
    etc.mkdir()
    for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "localtime", "machine-id", "iproute2"):
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, etc / name, symlinks=True)
        elif source.exists():
            shutil.copy(source, etc / name)
    (etc / "resolv.conf").touch()
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _SETUP],
        env={
            **os.environ,
            "BIND": "yes" if bind else "",
            "FOLDER": str(folder),
            "PYTHON": sys.base_prefix if sys.base_prefix.startswith("/root/") else "",
        },
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"up\n":
            raise AssertionError("the laptop's namespaces could not be set up")
        made = Laptop(folder, holder.pid)
        try:
            yield made
        finally:
            made.end()
    finally:
        holder.kill()
        holder.wait(5)
        holder.stdout.close()
