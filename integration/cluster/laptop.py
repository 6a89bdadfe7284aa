"""Laptops: rooms on the node's lan that reach the API server and their own resolver, and nothing else."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from integration.cluster import addresses as at
from integration.cluster.cluster import Cluster
from integration.cluster.commands import run, wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.lan_programs import line_program, questions_log
from integration.cluster.laptop_files import ACCOUNTS, set_up_files
from integration.cluster.node_network import cut_line, restore_line, silence_line
from integration.cluster.places import REPOSITORY
from integration.cluster.processes import RoomProcess
from integration.cluster.resolved import resolved_packages, start_resolved
from integration.cluster.room import Room

ResolverKind = Literal["file", "systemd-resolved"]
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Which of its servers systemd-resolved asked last is no setting: the line comes with the first question. The others are
# indented to match, so that goes too.
_HOST_STATE = """
echo '# rules'; ip rule; ip -6 rule
echo '# routes'; ip route show table all; ip -6 route show table all
echo '# nftables'; nft --stateless list ruleset
echo '# links'; ip -brief link; ip -brief address
echo '# resolver'; ls -l /etc/resolv.conf | sed 's/.* \\([^ ]*resolv.conf.*\\)$/\\1/'; cat /etc/resolv.conf
if command -v resolvectl >/dev/null && [ -S /run/dbus/system_bus_socket ]; then
    resolvectl --no-pager status | sed 's/^ *//; /^Current DNS Server:/d'
fi
"""


@dataclass(frozen=True)
class Laptop:
    """One laptop, found by its directory in the run directory of the cluster."""

    cluster: Cluster
    name: str
    room: Room
    number: int
    rtt: float | None
    since: float
    """When it was made, in seconds since the epoch; its address may have been another laptop's before."""

    @classmethod
    def create(
        cls,
        cluster: Cluster,
        name: str,
        *,
        user: str = "admin",
        groups: Sequence[str] = ("system:masters",),
        rtt: float | None = None,
        resolver: ResolverKind = "file",
        search: Sequence[str] = ("corp.example",),
        anew: bool = False,
    ) -> Self:
        """Make a laptop whose kubeconfig is that of `user` in `groups`.

        `rtt` is the round trip to the API server in seconds; None means no proxy on the way at all. `search` is the
        search list of its resolver configuration. `anew`: one of this name, left by a run that was killed, goes first.
        """
        if not _NAME.fullmatch(name):
            raise ClusterError(f"{name!r} is no name for a laptop: use small letters, digits and hyphens.")
        folder = cluster.places.laptops / name
        if anew and folder.exists():
            with contextlib.suppress(ClusterError):  # it was never finished
                cls.find(cluster, name).delete()
            shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
        except FileExistsError:
            raise ClusterError(f"There is a laptop called {name} already; delete it, or use it.") from None
        since = time.time()
        with contextlib.ExitStack() as undo:
            undo.callback(folder.rmdir)
            number = _take_number(cluster)
            undo.callback(_number(cluster, number).rmdir)
            room = Room.create(name, cluster.places.root)
            undo.pop_all()
        state = {"room": {"pid": room.pid, "started": room.started}, "number": number, "rtt": rtt, "since": since}
        (folder / "state.json").write_text(json.dumps(state))
        laptop = cls(cluster, name, room, number, rtt, since)
        try:
            laptop._set_up(user, groups, resolver, search)
        except BaseException:
            laptop.delete()
            raise
        return laptop

    @classmethod
    def find(cls, cluster: Cluster, name: str) -> Self:
        """The laptop of this name; `ClusterError` when there is none."""
        try:
            state = json.loads((cluster.places.laptops / name / "state.json").read_text())
        except OSError:
            raise ClusterError(f"There is no laptop called {name}.") from None
        room = Room(state["room"]["pid"], state["room"]["started"])
        return cls(cluster, name, room, state["number"], state["rtt"], state["since"])

    @property
    def address(self) -> str:
        return at.LAN.rpartition(".")[0] + f".{at.FIRST_LAPTOP + self.number}"

    @property
    def api_server(self) -> str:
        """The URL of the API server as this laptop reaches it."""
        return f"https://{at.NODE}:{at.API_PORT if self.rtt is None else at.LINE_PORTS[self.number]}"

    def path(self, inside: str) -> Path:
        """The path by which a file of the laptop is reached from the machine."""
        return Path(f"/proc/{self.room.pid}/root") / inside.lstrip("/")

    def write_kubeconfig(self, text: str, *, user: str = "dev", path: str | None = None) -> str:
        """Write a kubeconfig for an account of the laptop (by default the one it uses); returns the path inside."""
        account = ACCOUNTS[user]
        inside = path or f"{account.home}/.kube/config"
        file = self.path(inside)
        if not file.parent.exists():
            file.parent.mkdir(mode=0o700)
            os.chown(file.parent, account.number, account.number)
        file.touch(mode=0o600)
        file.write_text(text)
        os.chown(file, account.number, account.number)
        return inside

    def argv(
        self,
        argv: Sequence[str | Path],
        *,
        user: str = "dev",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = REPOSITORY,
    ) -> list[str]:
        """The command line, for any way of starting processes, that runs `argv` in the laptop as `user`.

        The environment is a fresh one (PATH with the project's scripts first, HOME, USER, KUBECONFIG, …) and `env`.
        """
        account = ACCOUNTS[user]
        first, last = self.cluster.laptop_tools()
        environment = {
            "PATH": ":".join([f"{sys.prefix}/bin", *first, _SYSTEM_PATH, *last]),
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "KUBECONFIG": f"{account.home}/.kube/config",
            **(env or {}),
        }
        # The program must not outlive the nsenter through which it is driven.
        privileges = ["setpriv", "--pdeathsig", "KILL"]
        if account.number:
            privileges += ["--reuid", account.name, "--regid", account.name, "--init-groups"]
        settings = [f"{key}={value}" for key, value in environment.items()]
        return self.room.argv([*privileges, "--", "env", "-i", "-C", str(cwd), *settings, *argv])

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        user: str = "dev",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = REPOSITORY,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
    ) -> RoomProcess:
        """Start `argv`; signals sent to the result reach the program itself."""
        command = self.argv(argv, user=user, env=env, cwd=cwd)
        return RoomProcess(command, stdin=stdin, stdout=stdout, stderr=stderr, text=True, start_new_session=True)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        user: str = "dev",
        env: Mapping[str, str] | None = None,
        cwd: str | Path = REPOSITORY,
        timeout: float = 30,
        stdin: str | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` to its end; `subprocess.TimeoutExpired` (and the program killed) after `timeout` seconds.

        With `check`, `ClusterError` with what it said when its status is not 0.
        """
        source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.popen(argv, user=user, env=env, cwd=cwd, stdin=source) as process:
            try:
                out, err = process.communicate(stdin, timeout=timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            words = " ".join(map(str, argv))
            raise ClusterError(f"`{words}` failed with status {process.returncode}: {(err or out).strip()[-2000:]}")
        return subprocess.CompletedProcess(list(map(str, argv)), process.returncode, out, err)

    def host_state(self) -> str:
        """Rules, routes, nft tables, links, addresses and resolver configuration, as text to compare."""
        return self.run(["sh", "-c", _HOST_STATE], user="root", check=True).stdout

    def questions(self) -> list[dict[str, Any]]:
        """What this laptop asked its resolver so far: `name` and `type`, in order."""
        log = questions_log(self.cluster.places)
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        return [entry for entry in entries if entry["client"] == self.address and entry["at"] >= self.since]

    def processes(self) -> dict[int, list[str]]:
        """Command lines of what runs in the laptop (without its holder), by the machine's process ids."""
        return {pid: argv for pid, argv in self.room.processes().items() if pid != self.room.pid}

    def cut(self) -> None:
        """Reset every connection to the API server, on both ends, and refuse new ones until `restore`."""
        cut_line(self.cluster.node, self.address)

    def silence(self) -> None:
        """Lose every packet to and from the API server until `restore`."""
        silence_line(self.cluster.node, self.address)

    def restore(self) -> None:
        """The line is as before."""
        restore_line(self.cluster.node, self.address)

    def delete(self) -> None:
        """End the laptop with all its processes; nothing is left of it."""
        node = self.cluster.node
        if node.alive:
            for pid, argv in node.processes().items():
                if f"--listen={self._line}" in argv:
                    os.kill(pid, signal.SIGKILL)
            self.restore()
            with contextlib.suppress(ClusterError):  # not made yet, or gone with the laptop
                node.run(["ip", "link", "delete", self._link])
        self.room.kill()
        shutil.rmtree(self.cluster.places.laptops / self.name, ignore_errors=True)
        _number(self.cluster, self.number).rmdir()

    def _set_up(self, user: str, groups: Sequence[str], resolver: ResolverKind, search: Sequence[str]) -> None:
        node = self.cluster.node
        near = ["ip", "link", "add", "eth0", "netns", str(self.room.pid), "type", "veth"]
        run([*near, "peer", "name", self._link, "netns", str(node.pid)])
        node.script(f"ip link set {self._link} master {at.LAN_BRIDGE} up\nbridge link set dev {self._link} isolated on")
        self.room.script(
            # Without duplicate detection the link-local address is there at once, and host states compare.
            "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad\n"
            f"ip link set lo up; ip address add {self.address}/24 dev eth0; ip link set eth0 up\n"
            f"ip route add default via {at.LAN_GATEWAY}"
        )
        packages = resolved_packages() if resolver == "systemd-resolved" else None
        set_up_files(self.room, self.name, search, cluster=self.cluster.places.name, packages=packages)
        if resolver == "systemd-resolved":
            start_resolved(self.room, search)
        if self.rtt is not None:
            self._start_line(self.rtt)
        text = self.cluster.kubeconfig(user, groups, server=self.api_server)
        for account in ACCOUNTS:
            self.write_kubeconfig(text, user=account)

    def _start_line(self, rtt: float) -> None:
        port_file = self.cluster.places.laptops / self.name / "line-port"
        words = line_program(self._line, f"{at.NODE}:{at.API_PORT}", rtt=rtt, port_file=port_file)
        self.cluster.node.start(words, log=self.cluster.places.logs / f"line-{self.name}.log")
        wait_for("the laptop's line", port_file.exists, timeout=10, every=0.01)

    @property
    def _line(self) -> str:
        return f"{at.NODE}:{at.LINE_PORTS[self.number]}"

    @property
    def _link(self) -> str:
        return f"laptop{self.number}"


def all_laptops(cluster: Cluster) -> list[Laptop]:
    return [Laptop.find(cluster, file.parent.name) for file in sorted(cluster.places.laptops.glob("*/state.json"))]


def _number(cluster: Cluster, number: int) -> Path:
    """The directory that says the number is taken."""
    return cluster.places.root / "numbers" / str(number)


def _take_number(cluster: Cluster) -> int:
    for number in range(len(at.LINE_PORTS)):
        with contextlib.suppress(FileExistsError):
            _number(cluster, number).mkdir(parents=True)
            return number
    raise ClusterError("There are too many laptops; delete some.")
