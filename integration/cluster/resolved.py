"""systemd-resolved inside a laptop, from Debian's packages unpacked into the cache.

It is never installed: the package would replace the machine's own /etc/resolv.conf.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from integration.cluster import addresses as at
from integration.cluster.build import unpack_packages
from integration.cluster.commands import step, wait_for
from integration.cluster.locks import locked
from integration.cluster.places import cache_directory
from integration.cluster.room import Room

_PACKAGES = ("systemd-resolved", "libsystemd-shared", "dbus-daemon", "dbus-system-bus-common", "libdbus-1-3")
# What they need that a small Debian lacks.
_LIBRARIES = ("libapparmor1", "libaudit1", "libcap-ng0", "libexpat1", "libip4tc2", "libkmod2")
_BUS = "/run/dbus/system_bus_socket"

_START = """
mkdir -p /run/dbus /run/systemd/resolve /run/systemd/system
chown systemd-resolve:systemd-resolve /run/systemd/resolve
setsid dbus-daemon --system --nofork --nopidfile >/run/dbus.log 2>&1 </dev/null &
"""


def resolved_packages() -> Path:
    """The directory with the unpacked packages; its `usr` is laid over the laptop's."""
    packages = (*_PACKAGES, *_LIBRARIES)
    target = cache_directory() / f"resolved-{hashlib.sha256(repr(packages).encode()).hexdigest()[:16]}"
    with locked("resolved"):
        if not target.exists():
            _unpack(packages, target)
    return target


def _unpack(packages: tuple[str, ...], target: Path) -> None:
    with step(f"unpack {', '.join(_PACKAGES)}"), tempfile.TemporaryDirectory() as folder:
        unpack_packages(packages, Path(folder))
        unfinished = target.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(Path(folder) / "usr", unfinished / "usr", symlinks=True)
        if (Path(folder) / "lib").exists():  # packages from before /lib became a link to /usr/lib
            shutil.copytree(Path(folder) / "lib", unfinished / "usr/lib", symlinks=True, dirs_exist_ok=True)
        unfinished.rename(target)


def start_resolved(room: Room, search: Sequence[str]) -> None:
    """Start a system bus and systemd-resolved in the laptop, with its resolver set on the link eth0."""
    root = Path(f"/proc/{room.pid}/root")
    room.script(_START)
    wait_for("the system bus", (root / _BUS.lstrip("/")).is_socket, timeout=10, every=0.02)
    resolver = root / "etc/resolv.conf"
    resolver.unlink()
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")  # what it reads there would become its own
    settings = root / "etc/systemd/resolved.conf.d/laptop.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n")
    room.script("setsid /usr/lib/systemd/systemd-resolved >/run/resolved.log 2>&1 </dev/null &")
    stub = root / "run/systemd/resolve/stub-resolv.conf"
    wait_for("systemd-resolved", stub.exists, timeout=10, every=0.02)
    room.script(
        f"resolvectl dns eth0 {at.LAN_RESOLVER}\n"
        f"resolvectl domain eth0 {' '.join(search)}\n"
        "resolvectl default-route eth0 true"
    )
