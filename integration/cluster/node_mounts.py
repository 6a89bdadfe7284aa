"""The node's file system: the machine's, with memory in place of every directory that the cluster writes to."""

from collections.abc import Sequence
from pathlib import Path

from integration.cluster.places import Places
from integration.cluster.room import Room

_PRIVATE = ("/run", "/var/lib", "/var/log")

# kubelet sets these for the whole machine when they differ; in the node it finds them as it wants them.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def set_up_mounts(node: Room, places: Places, needed: Sequence[Path]) -> None:
    """Cover the machine's directories inside the node; `needed` paths stay visible below them."""
    stage = places.root / "stage"
    stage.mkdir()
    lines = []
    for private in _PRIVATE:
        lines.append(f"mount -n -t tmpfs -o mode=755 node {stage}")
        for path in needed:
            if path.is_relative_to(private):
                inside = stage / path.relative_to(private)
                lines.append(f"mkdir -p {inside}; mount -n --bind {path} {inside}")
        lines.append(f"mount -n --move {stage} {private}")
    lines.append("mkdir -p /run/netns /run/containerd /run/lock /run/kernel")
    for name, value in _KERNEL_SETTINGS.items():
        file = "/run/kernel/" + name.replace("/", ".")
        lines.append(f"echo {value} > {file}; mount -n --bind {file} /proc/sys/{name}")
    node.script("\n".join(lines))
    stage.rmdir()
