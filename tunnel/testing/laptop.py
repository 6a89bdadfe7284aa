"""A laptop: a kernel in a network namespace, a TUN, and the stack running behind it in a thread. Needs root."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable
from socket import SocketKind
from socket import socket as Socket  # noqa: N812 (the class has a method of that name)
from types import TracebackType
from typing import Final, TypeVar

from tunnel.aio.stack_driver import StackDriver
from tunnel.stack import Limits, Stack
from tunnel.testing.namespace import Namespace
from tunnel.testing.services import Services
from tunnel.tun import Device

Result = TypeVar("Result")

HOST4: Final = "10.99.1.1"
HOST6: Final = "fd99:1::1"
"""Somewhere behind the tunnel."""


class Laptop:
    """Use as a context manager; `connect` and `socket` give sockets of its kernel."""

    def __init__(
        self, *, mtu: int = 65535, limits: Limits | None = None, wrap: Callable[[Device], Device] | None = None
    ) -> None:
        """`wrap` puts something between the device and the stack."""
        self.services = Services()
        self.stack = Stack(self.services, random32=lambda: secrets.randbits(32), limits=limits or Limits(mtu=mtu))
        self.namespace = Namespace()
        device: Device = self.namespace.tun(mtu=mtu)
        self._device = wrap(device) if wrap else device
        self._driver = StackDriver(self._device, self.stack)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stack")

    def __enter__(self) -> Laptop:
        self._thread.start()
        self.call(self._driver.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(self._driver.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._device.close()
        self.namespace.close()

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` in the stack's thread."""

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def socket(self, host: str, kind: SocketKind = SocketKind.SOCK_STREAM) -> Socket:
        """A socket of the laptop's kernel, of the family of `host`, with a time limit."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self.namespace.run(lambda: socket.socket(family, kind))
        made.settimeout(20)
        return made

    def connect(self, host: str, port: int) -> Socket:
        """A TCP connection through the stack; raises what connect raises."""
        made = self.socket(host)
        try:
            made.connect((host, port))
        except BaseException:
            made.close()
            raise
        return made
