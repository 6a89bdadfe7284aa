"""The device that joins the laptop's kernel to the stack: one read or write is one packet."""

from __future__ import annotations

from typing import Protocol

from tunnel.stack.vocabulary import Packet


class Device(Protocol):
    """A TUN, or what stands for one in a test. Packets carry a virtio header (`tunnel.stack.vnet`)."""

    def fileno(self) -> int:
        """For the event loop: readable when `read` has a packet."""

    def read(self) -> bytes | None:
        """One packet in memory of its own (views of it may be kept); None when there is none now. Raises OSError
        when the device is gone."""

    def write(self, packet: Packet) -> bool:
        """Hand one packet to the peer; False when it has to be tried again once the device is writable. A packet that
        the device refuses for good is dropped. Raises OSError when the device is gone."""

    def close(self) -> None:
        """Idempotent."""
