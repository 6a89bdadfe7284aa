"""The file system of a laptop: the machine's, with everything that a program there may change kept to itself.

/run is empty and private. /etc, /var, /home and /root are overlays: what is written stays in the laptop and goes with
it. /tmp and the repository are the machine's own. Nothing on the machine is changed, not even a mode.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from integration.cluster import addresses as at
from integration.cluster.build import binaries
from integration.cluster.places import REPOSITORY
from integration.cluster.room import Room

_OVERLAID = ("/etc", "/var", "/home", "/root")
_SCRATCH = "/mnt"  # covered for a moment; the overlays keep what they need of it
_DEVICES = {"/dev/fuse": "10 229", "/dev/net/tun": "10 200"}


@dataclass(frozen=True)
class Account:
    """A user of the laptop."""

    name: str
    number: int
    home: str
    groups: tuple[str, ...] = ()


ROOT = Account("root", 0, "/root")
DEV = Account("dev", 2001, "/home/dev", ("tpd",))
GUEST = Account("guest", 2002, "/home/guest")
GROUPS = {"tpd": 2100}
_SYSTEM_ACCOUNTS = (Account("messagebus", 2003, "/"), Account("systemd-resolve", 2004, "/"))
ACCOUNTS = {account.name: account for account in (ROOT, DEV, GUEST)}


def set_up_files(
    room: Room, hostname: str, search: Sequence[str], *, cluster: str, packages: Path | None = None
) -> None:
    """Cover the machine's files inside `room`; the files of `packages`, a directory with a `usr`, appear in /usr.

    A laptop of the same name on the same cluster is the same machine, however often it is made.
    """
    lines = [
        "mount -n -t tmpfs -o mode=755 laptop /run",
        "mkdir -p /run/lock; chmod 1777 /run/lock",
        f"mount -n -t tmpfs -o mode=755 laptop {_SCRATCH}",
    ]
    for directory in _OVERLAID:
        upper, work = f"{_SCRATCH}{directory}/upper", f"{_SCRATCH}{directory}/work"
        options = f"lowerdir={directory},upperdir={upper},workdir={work}"
        lines.append(f"mkdir -p {upper} {work}; mount -n -t overlay -o {options} laptop {directory}")
    if packages:
        lines.append(f"mount -n -t overlay -o lowerdir={packages / 'usr'}:/usr laptop /usr")
    for device, numbers in _DEVICES.items():  # for everybody, as on a laptop
        node = f"{_SCRATCH}/{Path(device).name}"
        lines.append(f"mknod -m 666 {node} c {numbers}; [ ! -e {device} ] || mount -n --bind {node} {device}")
    lines.append(f"umount -n -l {_SCRATCH}")
    lines += [f"chmod o+rx {directory}" for directory in _closed_ancestors()]
    lines.append("mount -n -t sysfs -o ro laptop /sys")
    room.script("\n".join(lines))
    root = Path(f"/proc/{room.pid}/root")
    _write_accounts(root)
    _write(root / "etc/hostname", hostname + "\n")
    _write(root / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n")
    _write(root / "etc/machine-id", hashlib.sha256(f"{cluster}/{hostname}".encode()).hexdigest()[:32] + "\n")
    _write(root / "etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    domains = f"search {' '.join(search)}\n" if search else ""
    _write(root / "etc/resolv.conf", f"nameserver {at.LAN_RESOLVER}\n{domains}")


def _closed_ancestors() -> list[Path]:
    """Directories that hide the project or its Python from other users of the machine."""
    needed = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), binaries()}
    ancestors = {parent for path in needed for parent in (path, *path.parents)}
    inside = [path for path in ancestors if any(path.is_relative_to(top) for top in _OVERLAID)]
    return sorted(path for path in inside if path.stat().st_mode & 0o005 != 0o005)


def _write_accounts(root: Path) -> None:
    accounts = (DEV, GUEST, *_SYSTEM_ACCOUNTS)
    names = {account.name for account in accounts}
    passwd = _without(root / "etc/passwd", names)
    group = _without(root / "etc/group", names | set(GROUPS))
    for account in accounts:
        passwd.append(f"{account.name}:x:{account.number}:{account.number}::{account.home}:/bin/sh")
        group.append(f"{account.name}:x:{account.number}:")
    for name, number in GROUPS.items():
        members = ",".join(account.name for account in accounts if name in account.groups)
        group.append(f"{name}:x:{number}:{members}")
    _write(root / "etc/passwd", "\n".join(passwd) + "\n")
    _write(root / "etc/group", "\n".join(group) + "\n")
    for account in (DEV, GUEST):
        home = root / account.home.lstrip("/")
        home.mkdir(mode=0o700, exist_ok=True)
        os.chown(home, account.number, account.number)


def _without(path: Path, names: set[str]) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.split(":")[0] not in names]


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # it may be a link out of the laptop
    path.write_text(text)
