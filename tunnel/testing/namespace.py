"""A network namespace of a test's own, with a TUN inside: a laptop's kernel in a box. Needs root.

It has no name and no process: it is gone when its last descriptor is, also after a crash.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, TypeVar

from tunnel.tun.linux import LinuxTun, open_tun

_CLONE_NEWNET: Final = 0x40000000

Result = TypeVar("Result")


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Namespace:
    """A thread that lives in a fresh network namespace. Sockets made by it stay there, whoever uses them."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="namespace", initializer=_unshare)
        try:
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Namespace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, function: Callable[[], Result]) -> Result:
        """Call `function` inside; processes that it starts are inside as well."""
        return self._thread.submit(function).result(30)

    def ip(self, *arguments: str) -> None:
        """Run ip(8) inside."""
        self.run(lambda: subprocess.run(["ip", *arguments], check=True, timeout=10))

    def write(self, path: str, value: str) -> None:
        """Set a sysctl of the namespace, by its path under /proc/sys."""

        def write() -> None:
            with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
                file.write(value)

        self.run(write)

    def tun(self, *, name: str = "tun0", mtu: int = 65535) -> LinuxTun:
        """A TUN that is up: the laptop is 10.99.0.1 and fd99::1 on it; everything else is routed into it."""
        device = LinuxTun(self.run(lambda: open_tun(name)))
        self.ip("addr", "add", "10.99.0.1/32", "dev", name)
        self.ip("link", "set", name, "mtu", str(mtu), "txqueuelen", "10000", "up")
        self.ip("route", "add", "default", "dev", name)
        self.ip("-6", "addr", "add", "fd99::1/128", "dev", name, "nodad")
        self.ip("-6", "route", "add", "default", "dev", name)
        return device

    def close(self) -> None:
        """Let go; the namespace ends with the last socket in it."""
        self._thread.shutdown()
