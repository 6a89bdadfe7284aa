"""The control groups below which a cluster's pods live; the kernel does not remove them by itself."""

import contextlib
import time
from pathlib import Path

from integration.cluster.errors import ClusterError

_ROOT = Path("/sys/fs/cgroup")


def create(group: str) -> None:
    """Make `group` in every hierarchy (version 1), or in the one there is (version 2)."""
    for hierarchy in _hierarchies():
        folder = hierarchy / group.lstrip("/")
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1, and then nothing runs
            if (hierarchy / name).exists() and not (folder / name).read_text().strip():
                (folder / name).write_text((hierarchy / name).read_text())
        if (folder / "cgroup.subtree_control").exists():
            for controller in (folder / "cgroup.controllers").read_text().split():
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(group: str) -> None:
    """Remove `group` and all below it; its processes must have ended."""
    deadline = time.monotonic() + 10
    while left := _remove_once(group):
        if time.monotonic() > deadline:
            raise ClusterError(f"Control groups are still in use: {', '.join(map(str, left))}.")
        time.sleep(0.05)


def existing(group: str) -> list[Path]:
    """Every directory of `group`, deepest first."""
    found = []
    for hierarchy in _hierarchies():
        folder = hierarchy / group.lstrip("/")
        if folder.exists():
            found += [path for path in folder.rglob("*") if path.is_dir()] + [folder]
    return sorted(found, key=lambda path: -len(path.parts))


def _remove_once(group: str) -> list[Path]:
    for folder in existing(group):
        with contextlib.suppress(OSError):  # busy until the kernel has let go of the last process
            folder.rmdir()
    return existing(group)


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink()]
