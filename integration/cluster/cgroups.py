"""The control groups below which a cluster's pods live; the kernel does not remove them by itself."""

import contextlib
import json
import time
from pathlib import Path

from integration.cluster.errors import ClusterError

_ROOT = Path("/sys/fs/cgroup")
_FOR_KUBELET = ("cpu", "cpuset", "memory", "hugetlb", "pids")
"""Where the machine has them (version 2), kubelet wants them in the group that it is given."""


def create(group: str, added: Path, root: Path = _ROOT) -> None:
    """Make `group` in every hierarchy (version 1), or in the one there is (version 2).

    Controllers that the root did not pass on until now are noted in the file `added`, which `remove` reads. Clusters
    that run side by side share it. `ClusterError` where the root may not be changed.
    """
    if (root / "cgroup.controllers").exists():
        _pass_on(root, added)
    for hierarchy in _hierarchies(root):
        folder = hierarchy / group.lstrip("/")
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1, and then nothing runs
            if (hierarchy / name).exists() and not (folder / name).read_text().strip():
                (folder / name).write_text((hierarchy / name).read_text())
        if (folder / "cgroup.subtree_control").exists():
            for controller in (folder / "cgroup.controllers").read_text().split():
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def remove(group: str, added: Path, root: Path = _ROOT) -> None:
    """Remove `group` and all below it, and with the last one what was added to the root; processes must have ended."""
    deadline = time.monotonic() + 10
    while left := _remove_once(group, root):
        if time.monotonic() > deadline:
            raise ClusterError(f"Control groups are still in use: {', '.join(map(str, left))}.")
        time.sleep(0.05)
    if added.exists():
        # The kernel refuses as long as another cluster's group passes one on.
        with contextlib.suppress(OSError):
            _write(root, "-", json.loads(added.read_text()))
            added.unlink()


def existing(group: str, root: Path = _ROOT) -> list[Path]:
    """Every directory of `group`, deepest first."""
    found = []
    for hierarchy in _hierarchies(root):
        folder = hierarchy / group.lstrip("/")
        if folder.exists():
            found += [path for path in folder.rglob("*") if path.is_dir()] + [folder]
    return sorted(found, key=lambda path: -len(path.parts))


def _pass_on(root: Path, added: Path) -> None:
    has, passed_on = (set((root / f"cgroup.{name}").read_text().split()) for name in ("controllers", "subtree_control"))
    missing = [name for name in _FOR_KUBELET if name in has - passed_on]
    if not missing:
        return
    earlier = json.loads(added.read_text()) if added.exists() else []
    added.write_text(json.dumps(sorted({*earlier, *missing})))
    try:
        _write(root, "+", missing)
    except OSError as error:
        if not earlier:
            added.unlink()
        raise ClusterError(
            f"Kubernetes needs the control group controllers {', '.join(missing)}, and {root} does not let them be"
            f" enabled ({error.strerror}): enable them in its cgroup.subtree_control, or use another machine."
        ) from error


def _write(root: Path, sign: str, controllers: list[str]) -> None:
    (root / "cgroup.subtree_control").write_text(" ".join(f"{sign}{name}" for name in controllers))


def _remove_once(group: str, root: Path) -> list[Path]:
    for folder in existing(group, root):
        with contextlib.suppress(OSError):  # busy until the kernel has let go of the last process
            folder.rmdir()
    return existing(group, root)


def _hierarchies(root: Path) -> list[Path]:
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
