"""The cluster: up, down, users, kubectl and images."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from integration.cluster import addresses as at
from integration.cluster import cgroups, components, images
from integration.cluster.addons import COREDNS_MANIFESTS
from integration.cluster.build import binaries, tool_directories
from integration.cluster.commands import run, say, step, wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.kubeconfig import kubeconfig, write_kubeconfig
from integration.cluster.lan_programs import line_program, start_resolvers
from integration.cluster.locks import locked
from integration.cluster.node_mounts import set_up_mounts
from integration.cluster.node_network import set_up_network
from integration.cluster.oci import Image, write_archive
from integration.cluster.pki import Authority
from integration.cluster.places import DEFAULT_NAME, REPOSITORY, Places
from integration.cluster.room import Room, end_rooms

_CTR = ("ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io")


class Cluster:
    """A running local cluster, found by its run directory."""

    def __init__(self, places: Places, node: Room, api_port: int) -> None:
        self.places = places
        self.node = node
        self.api_port = api_port
        """The API server for the machine itself: this port on 127.0.0.1."""

    @classmethod
    def find(cls, name: str = DEFAULT_NAME) -> Self:
        """The cluster that runs under this name; `ClusterError` when none does."""
        places = Places(name)
        try:
            state = json.loads(places.state.read_text())
        except OSError:
            raise ClusterError(
                f"No cluster called {name} runs here; `python -m integration.cluster up` starts one."
            ) from None
        node = Room(state["node"]["pid"], state["node"]["started"])
        if not node.alive or not state["complete"]:
            raise ClusterError(
                f"The cluster called {name} has died; `python -m integration.cluster up` starts it again."
            )
        return cls(places, node, state["api_port"])

    @classmethod
    def up(cls, name: str = DEFAULT_NAME) -> Self:
        """Start the cluster, or find it running; returns when its DNS answers."""
        if os.geteuid() != 0:
            raise ClusterError("The local cluster needs root for its namespaces: run it with sudo.")
        binaries()
        essential = [images.pause(), images.coredns()]
        with locked(f"cluster-{name}"):
            with contextlib.suppress(ClusterError):
                return cls.find(name)
            _remove(Places(name))  # what a crash may have left
            begun = time.monotonic()
            try:
                cluster = cls._start(Places(name), essential)
            except BaseException:
                _say_logs(Places(name))
                _remove(Places(name))
                raise
            say(f"Kubernetes is up after {time.monotonic() - begun:.1f} s.")
            return cluster

    @classmethod
    def _start(cls, places: Places, essential: Sequence[Image]) -> Self:
        with step("node"):
            node = create_node(places, [binaries()])
            api_port = _open_door(places, node)
            cluster = cls(places, node, api_port)
        with step("control plane"):
            cluster._start_programs()
        with step("images of the cluster"):
            cluster.load(essential)
        cluster.kubectl("apply", "-f", "-", stdin=COREDNS_MANIFESTS)
        with step("node ready and DNS"):
            cluster.wait("node", at.NODE_NAME, "Ready")
            cluster.wait("deployment", "coredns", "Available", namespace="kube-system")
        write_state(places, node, api_port=api_port, complete=True)
        return cluster

    def _start_programs(self) -> None:
        authority = components.write_certificates(self.places)
        admin = authority.client("admin", ["system:masters"])
        text = kubeconfig(server=self.server, authority=authority.certificate, client=admin)
        write_kubeconfig(self.admin_kubeconfig, text)
        self._start_each(components.etcd, components.apiserver, components.containerd)
        wait_for("the API server", self._api_ready, timeout=60, every=0.1)
        self._start_each(components.controller_manager, components.scheduler, components.kubelet, components.kube_proxy)
        containerd = Path(f"/proc/{self.node.pid}/root/run/containerd/containerd.sock")
        wait_for("containerd", containerd.exists, timeout=20)

    def _start_each(self, *recipes: components.Recipe) -> None:
        path = f"{binaries()}:/usr/sbin:/usr/bin:/sbin:/bin"
        for recipe in recipes:
            program = recipe(binaries(), self.places)
            self.node.start(program.argv, log=self.places.logs / f"{program.name}.log", env={"PATH": path})

    def _api_ready(self) -> bool:
        try:
            self.kubectl("get", "--raw", "/readyz", timeout=5)
        except ClusterError:
            return False
        return True

    @property
    def server(self) -> str:
        """The URL of the API server for the machine itself."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def admin_kubeconfig(self) -> Path:
        """The administrator's, for the machine itself."""
        return self.places.root / "admin.kubeconfig"

    def kubeconfig(
        self, user: str, groups: Sequence[str] = (), *, server: str | None = None, namespace: str = "default"
    ) -> str:
        """The text of a kubeconfig for any user; `server` is by default the address that laptops use."""
        authority = Authority(self.places.pki)
        return kubeconfig(
            server=server or f"https://{at.NODE}:{at.API_PORT}",
            authority=authority.certificate,
            client=authority.client(user, groups),
            namespace=namespace,
        )

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 90) -> str:
        """Run kubectl as the cluster's administrator and return what it prints."""
        program = [self.kubectl_program(), f"--kubeconfig={self.admin_kubeconfig}"]
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
        return run([*program, *arguments], stdin=stdin, timeout=timeout, env=environment)

    def wait(self, kind: str, name: str, condition: str, *, namespace: str = "default", timeout: float = 60) -> None:
        """Wait for a condition of an object; `ClusterError` after `timeout` seconds."""
        words = ["wait", f"--for=condition={condition}", f"{kind}/{name}", f"--timeout={timeout:g}s"]
        self.kubectl(f"--namespace={namespace}", *words, timeout=timeout + 10)

    def python(self, program: str, *arguments: str, timeout: float = 60) -> str:
        """Run a Python program (standard library only) where Services are reached, here on the node; what it prints."""
        return self.node.run([sys.executable, "-ISc", program, *arguments], timeout=timeout)

    @staticmethod
    def kubectl_program() -> str:
        return str(binaries() / "kubectl")

    def laptop_tools(self) -> tuple[list[str], list[str]]:
        """Directories in front of and behind the system's in the PATH of laptops."""
        first, last = tool_directories()
        return [str(first)], [str(last)]

    def image(self, name: str) -> str:
        """The reference under which the cluster knows one of our images: manager, agent or test."""
        return {"manager": images.MANAGER, "agent": images.AGENT, "test": images.TEST}[name]

    def digest(self, name: str) -> str:
        """What tells one build of that image from another; empty where nobody here knows."""
        return images.RECIPES[name]().digest()

    def load(self, wanted: Sequence[Image]) -> None:
        """Put images into the node's containerd; only layers that it does not have travel."""
        ctr = [str(binaries() / _CTR[0]), *_CTR[1:]]
        known = frozenset(self.node.run([*ctr, "content", "ls", "-q"]).split())
        missing = [image for image in wanted if image.digest() not in known]
        if not missing:
            return
        archive = self.places.root / f"images.{os.getpid()}.tar"
        try:
            write_archive(missing, archive, known=known)
            self.node.run([*ctr, "images", "import", archive], timeout=300)
        finally:
            archive.unlink(missing_ok=True)

    def load_project(self) -> None:
        """Build what changed of the manager's, the agent's and the tests' image, and load it."""
        with step("images manager, agent, test"):
            self.load([images.manager(), images.agent(), images.test()])

    def down(self) -> None:
        """End the cluster and its laptops and leave nothing of them."""
        down(self.places.name)


def down(name: str = DEFAULT_NAME) -> None:
    """End the cluster of this name and its laptops and leave nothing of them, also after a crash."""
    with locked(f"cluster-{name}"):
        _remove(Places(name))


def create_node(places: Places, needed: Sequence[Path]) -> Room:
    """The room with the lan, its resolvers and its walls; `needed` directories are visible in it."""
    for folder in (places.root, places.config, places.logs, places.laptops):
        folder.mkdir(parents=True, exist_ok=True)
    cgroups.create(places.cgroup, places.added_controllers)
    node = Room.create(at.NODE_NAME, places.root)
    write_state(places, node, api_port=0, complete=False)  # from here on `down` finds what to end
    set_up_mounts(node, places, [places.root, REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *needed])
    set_up_network(node)
    start_resolvers(places, node)
    return node


def write_state(places: Places, node: Room, *, api_port: int, complete: bool) -> None:
    """Note what a later command needs in order to find the cluster, or to remove it."""
    state = {"node": {"pid": node.pid, "started": node.started}, "api_port": api_port, "complete": complete}
    unfinished = places.state.with_suffix(".new")
    unfinished.write_text(json.dumps(state))
    unfinished.rename(places.state)


def _open_door(places: Places, node: Room) -> int:
    """Let the machine itself reach the API server, by a port on its loopback; the door dies with the node."""
    port_file = places.root / "api-port"
    # In the node's process namespace, where process 1 is its holder, but not yet in its network.
    words = line_program("127.0.0.1:0", f"{at.NODE}:{at.API_PORT}", enter="/proc/1/ns/net", port_file=port_file)
    node.start(words, log=places.logs / "door.log", namespaces=("--pid", "--mount"))
    wait_for("the door to the API server", port_file.exists, timeout=10, every=0.01)
    return int(port_file.read_text())


def _remove(places: Places) -> None:
    end_rooms(places.root)
    cgroups.remove(places.cgroup, places.added_controllers)
    shutil.rmtree(places.root, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are other clusters, or there was none
        places.root.parent.rmdir()


def _say_logs(places: Places) -> None:
    say(f"  failed; the end of each log of {places.logs}:")
    for log in sorted(places.logs.glob("*.log")):
        say("\n".join([f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-5:]]))
