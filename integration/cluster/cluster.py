"""The cluster: up, down, status, users and images."""

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
from integration.cluster.build import binaries
from integration.cluster.commands import run, say, step, wait_for
from integration.cluster.errors import ClusterError
from integration.cluster.kubeconfig import kubeconfig, write_kubeconfig
from integration.cluster.node_mounts import set_up_mounts
from integration.cluster.node_network import set_up_network
from integration.cluster.oci import Image, write_archive
from integration.cluster.pki import Authority
from integration.cluster.places import CODE, REPOSITORY, Places
from integration.cluster.room import Room

_OUTSIDE_NAMES = {
    "www.corp.example": "198.51.100.10",
    "intranet.corp.example": "198.51.100.11",
    "example.org": "198.51.100.12",
    "www.example.org": "198.51.100.12",
    at.API_HOST: at.NODE,
}
_CTR = ("ctr", "--address", "/run/containerd/containerd.sock", "--namespace", "k8s.io")


class Cluster:
    """A running cluster, found by its run directory."""

    def __init__(self, places: Places, node: Room, api_port: int) -> None:
        self.places = places
        self.node = node
        self.api_port = api_port
        """The API server for the machine itself: this port on 127.0.0.1."""

    @classmethod
    def find(cls, name: str = Places().name) -> Self:
        """The cluster that runs under this name; `ClusterError` when none does."""
        places = Places(name)
        try:
            state = json.loads(places.state.read_text())
        except OSError:
            raise ClusterError(
                f"No cluster called {name} runs here; `python -m integration.cluster up` starts one."
            ) from None
        node = Room(state["node"]["pid"], state["node"]["started"])
        if not node.alive:
            raise ClusterError(
                f"The cluster called {name} has died; `python -m integration.cluster up` starts it again."
            )
        return cls(places, node, state["api_port"])

    @classmethod
    def up(cls, name: str = Places().name) -> Self:
        """Start the cluster, or find it running; returns when CoreDNS answers."""
        try:
            return cls.find(name)
        except ClusterError:
            down(name)  # what a crash may have left
        if os.geteuid() != 0:
            raise ClusterError("The local cluster needs root for its namespaces: run it with sudo.")
        bin_ = binaries()
        essential = [images.pause(), images.coredns()]
        begun = time.monotonic()
        try:
            with step("node"):
                cluster = cls._create_node(Places(name), bin_)
            with step("control plane"):
                cluster._start_programs(bin_)
            with step("images of the cluster"):
                cluster.load(essential)
            cluster.kubectl("apply", "-f", "-", stdin=COREDNS_MANIFESTS)
            with step("node ready and DNS"):
                cluster.kubectl("wait", "--for=condition=Ready", f"node/{at.NODE_NAME}", "--timeout=60s")
                cluster.kubectl(
                    "-n", "kube-system", "wait", "--for=condition=Available", "deployment/coredns", "--timeout=60s"
                )
        except BaseException:
            cluster_logs = Places(name).logs
            say(f"  failed; the end of each log of {cluster_logs}:")
            for log in sorted(cluster_logs.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()
                say("\n".join([f"--- {log.name}", *lines[-5:]]))
            down(name)
            raise
        say(f"Kubernetes is up after {time.monotonic() - begun:.1f} s.")
        return cluster

    @classmethod
    def _create_node(cls, places: Places, bin_: Path) -> Self:
        for folder in (places.root, places.config, places.logs, places.laptops):
            folder.mkdir(parents=True, exist_ok=True)
        cgroups.create(places.cgroup)
        node = Room.create(at.NODE_NAME)
        state = {"node": {"pid": node.pid, "started": node.started}, "api_port": 0}
        places.state.write_text(json.dumps(state))  # from here on `down` finds what to end
        set_up_mounts(node, places, [places.root, bin_, REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)])
        set_up_network(node)
        cls._start_resolvers(places, node)
        state["api_port"] = cls._open_door(places, node)
        places.state.write_text(json.dumps(state))
        return cls(places, node, int(str(state["api_port"])))

    @staticmethod
    def _start_resolvers(places: Places, node: Room) -> None:
        answers = [f"--answer={name}={address}" for name, address in _OUTSIDE_NAMES.items()]
        listen = [f"--listen=lan={at.LAN_RESOLVER}", f"--listen=cluster={at.CLUSTER_UPSTREAM}"]
        program = [sys.executable, "-I", str(CODE / "names.py"), f"--log={places.root / 'questions.jsonl'}"]
        node.start([*program, *listen, *answers], log=places.logs / "names.log")

    @staticmethod
    def _open_door(places: Places, node: Room) -> int:
        """Let the machine itself reach the API server, by a port on its loopback; the door dies with the node."""
        port_file = places.root / "api-port"
        door = [sys.executable, "-I", str(CODE / "line.py"), "--listen=127.0.0.1:0", f"--to={at.NODE}:{at.API_PORT}"]
        options = ["--enter-net=1", f"--port-file={port_file}"]
        log = places.logs / "door.log"
        # In the node's process namespace, where the holder is process 1, but not yet in its network.
        outer = node.argv(
            ["sh", "-c", f'setsid "$@" >>{log} 2>&1 </dev/null &', "sh", *door, *options],
            namespaces=("--pid", "--mount"),
        )
        run(outer)
        wait_for("the door to the API server", port_file.exists, timeout=10, every=0.01)
        return int(port_file.read_text())

    def _start_programs(self, bin_: Path) -> None:
        authority = components.write_certificates(self.places)
        admin = authority.client("admin", ["system:masters"])
        text = kubeconfig(server=f"https://127.0.0.1:{self.api_port}", authority=authority.certificate, client=admin)
        write_kubeconfig(self.admin_kubeconfig, text)
        early = (components.etcd, components.apiserver, components.containerd)
        late = (components.controller_manager, components.scheduler, components.kubelet, components.kube_proxy)
        self._start(early, bin_)
        wait_for("the API server", self._api_ready, timeout=60, every=0.1)
        self._start(late, bin_)
        containerd = Path(f"/proc/{self.node.pid}/root/run/containerd/containerd.sock")
        wait_for("containerd", containerd.exists, timeout=20)

    def _start(self, programs: Sequence[components.Recipe], bin_: Path) -> None:
        for recipe in programs:
            program = recipe(bin_, self.places)
            environment = {"PATH": f"{bin_}:/usr/sbin:/usr/bin:/sbin:/bin", **program.env}
            self.node.start(program.argv, log=self.places.logs / f"{program.name}.log", env=environment)

    def _api_ready(self) -> bool:
        try:
            self.kubectl("get", "--raw", "/readyz", timeout=5)
        except ClusterError:
            return False
        return True

    @property
    def admin_kubeconfig(self) -> Path:
        """For the machine itself: it reaches the API server through the door on its loopback."""
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
        """Run kubectl as the cluster's administrator."""
        program = [str(binaries() / "kubectl"), f"--kubeconfig={self.admin_kubeconfig}"]
        return run([*program, *arguments], stdin=stdin, timeout=timeout, env={"PATH": os.environ["PATH"], "HOME": "/"})

    def load(self, wanted: Sequence[Image]) -> None:
        """Put images into the node's containerd; only layers that it does not have travel."""
        known = self.node.run([*self._ctr, "content", "ls", "-q"]).split()
        missing = [image for image in wanted if image.digest() not in known]
        if not missing:
            return
        archive = self.places.root / f"images.{os.getpid()}.tar"
        try:
            write_archive(missing, archive, known=frozenset(known))
            self.node.run([*self._ctr, "images", "import", archive], timeout=300)
        finally:
            archive.unlink(missing_ok=True)

    @property
    def _ctr(self) -> list[str]:
        return [str(binaries() / _CTR[0]), *_CTR[1:]]


def down(name: str = Places().name) -> None:
    """End the cluster and its laptops and leave nothing of them, also after a crash."""
    places = Places(name)
    if not places.root.exists():
        return
    states = [*places.laptops.glob("*/state.json"), places.state]
    for file in states:
        try:
            holder = json.loads(file.read_text())["node" if file == places.state else "room"]
        except (OSError, ValueError, KeyError):  # it was being made when the crash came
            continue
        Room(holder["pid"], holder["started"]).kill()
    cgroups.remove(places.cgroup)
    shutil.rmtree(places.root)
    if not any(places.root.parent.iterdir()):
        places.root.parent.rmdir()
