"""Control groups of version 2, in a directory that looks like the kernel's."""

from pathlib import Path

import pytest

from integration.cluster import cgroups
from integration.cluster.errors import ClusterError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose root passes only some of its controllers on."""
    made = tmp_path / "cgroup"
    made.mkdir()
    (made / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
    (made / "cgroup.subtree_control").write_text("io memory pids\n")
    return made


def test_what_kubelet_needs_is_passed_on_and_taken_back(root: Path, tmp_path: Path) -> None:
    added, control = tmp_path / "added", root / "cgroup.subtree_control"
    cgroups.create("/ours", added, root)
    assert control.read_text() == "+cpu +cpuset"  # there is no hugetlb, and memory and pids were passed on before
    assert (root / "ours").is_dir()
    cgroups.remove("/ours", added, root)
    assert control.read_text() == "-cpu -cpuset"
    assert not added.exists()
    assert not (root / "ours").exists()


def test_where_nothing_is_missing_nothing_is_changed(root: Path, tmp_path: Path) -> None:
    control = root / "cgroup.subtree_control"
    control.write_text("cpuset cpu memory pids\n")
    cgroups.create("/ours", tmp_path / "added", root)
    cgroups.remove("/ours", tmp_path / "added", root)
    assert control.read_text() == "cpuset cpu memory pids\n"


def test_a_root_that_may_not_be_changed_is_said(root: Path, tmp_path: Path) -> None:
    control, added = root / "cgroup.subtree_control", tmp_path / "added"
    control.unlink()
    control.symlink_to("/proc/self/cmdline")  # as the kernel's: it can be read, and writing fails, also for root
    with pytest.raises(ClusterError, match=r"needs the control group controllers cpu, .*does not let them be enabled"):
        cgroups.create("/ours", added, root)
    assert not added.exists()
