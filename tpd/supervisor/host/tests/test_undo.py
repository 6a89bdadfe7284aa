"""What cannot be undone now is undone later, and keeps nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from tpd.supervisor.host import netlink, undo
from tpd.supervisor.host.journal import Entry, Journal, left_behind, slots
from tpd.supervisor.host.linux import LinuxHost
from tpd.supervisor.host.types import HostError

NO_DEVICE: Entry = {"kind": "device", "device": "tp-nowhere"}


class NoDescriptors:
    """A netlink socket in a process that has no descriptor left."""

    async def __aenter__(self) -> None:
        raise OSError(24, "Too many open files")

    async def __aexit__(self, *_: object) -> None: ...


def test_one_failure_keeps_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("ours")
    theirs = {"type": "file", "text": "theirs", "mode": 0o644, "uid": conf.stat().st_uid, "gid": conf.stat().st_gid}
    change: Entry = {
        "kind": "file",
        "path": str(conf),
        "ours": "ours",
        "original": theirs,
        "nameserver": "198.19.254.2",
    }
    broken: Entry = {"kind": "rule"}  # a record of another version: a bug, not an OSError
    monkeypatch.setattr(netlink, "AsyncIPRoute", NoDescriptors)
    left = asyncio.run(undo.undo([NO_DEVICE, broken, change]))
    assert conf.read_text() == "theirs"
    assert left.entries == [NO_DEVICE, broken]
    assert left.why[-1] == "device: cannot ask the kernel about the network: Too many open files"
    monkeypatch.undo()
    assert asyncio.run(undo.undo([NO_DEVICE])) == undo.Left([], ())
    assert asyncio.run(undo.undo([broken], same_boot=False)) == undo.Left([], ())


def test_a_journal_stays_until_everything_is_undone(tmp_path: Path) -> None:
    host = LinuxHost(state=tmp_path, policy_file=tmp_path / "policy.yaml", resolv_conf=tmp_path / "resolv.conf")
    folder = tmp_path / "journal"
    record = Journal(folder / "tp3.jsonl")
    record.record("rule")
    record.close()
    assert asyncio.run(host.restore()) == [
        "not all that an earlier tpd had left of the connection on tp3 is undone yet"
    ]
    assert slots(folder) == {3}
    assert asyncio.run(host.tend()) is False
    assert slots(folder) == {3}
    host._left[record.path].entries[:] = [NO_DEVICE]  # what was in the way is gone
    asyncio.run(host.tend())
    assert list(left_behind(folder)) == []


def test_what_the_kernel_does_not_tell_is_a_sentence() -> None:
    async def scenario() -> None:
        async with netlink.netlink():
            raise NetlinkError(1, "Operation not permitted")

    with pytest.raises(HostError, match="Operation not permitted"):
        asyncio.run(scenario())
