"""Opening, wrapping and losing a real TUN."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

import pytest
import uvloop

from tunnel.aio.stack_driver import StackDriver
from tunnel.stack import Stack
from tunnel.testing.namespace import Namespace
from tunnel.testing.services import Services
from tunnel.tun.linux import LinuxTun, open_tun

pytestmark = pytest.mark.root


def test_a_name_is_checked_before_anything_happens() -> None:
    for name in ("", "x" * 16):
        with pytest.raises(ValueError, match="device name"):
            open_tun(name)


def test_a_descriptor_that_is_no_tun_is_refused() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match=r"Inappropriate|Invalid"):
        LinuxTun(file.fileno())


def test_open_read_write_close() -> None:
    with Namespace() as namespace:
        device = namespace.tun(name="some-tun")
        assert device.name == "some-tun"
        assert not os.get_inheritable(device.fileno())
        while device.read() is not None:
            pass  # the kernel's own group memberships
        assert device.write([b"garbage"]), "what the kernel refuses is a loss, not an error"
        assert device.dropped == 1
        namespace.ip("link", "set", "some-tun", "down")
        assert device.write([bytes(60)])
        assert device.dropped == 2
        device.close()
        device.close()


def test_a_packet_that_cannot_be_read_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | bytes] = []

    def read(descriptor: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer

    with Namespace() as namespace:
        device = namespace.tun()
        monkeypatch.setattr("tunnel.tun.linux.os.read", read)
        answers[:] = [errno.EINVAL, errno.EIO, errno.ENOMEM, errno.ENOBUFS, b"packet", errno.EINVAL, errno.EAGAIN]
        assert device.read() == b"packet"
        assert device.read() is None
        assert device.unread == 5
        answers[:] = [errno.EIO] * 1000
        with pytest.raises(OSError, match="Input/output"):
            device.read()
        assert len(answers) == 1000 - 64
        answers[:] = [errno.EBADFD]
        with pytest.raises(OSError, match="bad state"):
            device.read()
        monkeypatch.undo()
        device.close()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_deleted_device_is_noticed(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    lost: list[OSError] = []

    async def main() -> None:
        with Namespace() as namespace:
            device = namespace.tun()
            driver = StackDriver(device, Stack(Services(), random32=lambda: 1), on_lost=lost.append)
            driver.start()
            await asyncio.to_thread(namespace.ip, "link", "delete", "tun0")
            await asyncio.sleep(0.2)
            driver.stop()
            device.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert len(lost) == 1
