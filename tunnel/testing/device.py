"""A device without root: a pair of sockets that keep packets apart."""

from __future__ import annotations

import os
import random
import socket
from collections import deque

from tunnel.stack.vocabulary import Packet
from tunnel.tun import Device

_QUEUE = 4 * 1024 * 1024


class SocketDevice(Device):
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)

    def fileno(self) -> int:
        """See `Device`."""
        return self._socket.fileno()

    def read(self) -> bytes | None:
        """See `Device`."""
        try:
            packet = self._socket.recv(1 << 17)
        except BlockingIOError:
            return None
        if not packet:
            raise ConnectionResetError("the other end of the device is closed")
        return packet

    def write(self, packet: Packet) -> bool:
        """See `Device`."""
        try:
            os.writev(self._socket.fileno(), packet)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """See `Device`."""
        self._socket.close()


def device_pair() -> tuple[SocketDevice, SocketDevice]:
    """What one end writes the other reads, packet by packet, in order."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return SocketDevice(left), SocketDevice(right)


class FaultyDevice(Device):
    """A device that loses, repeats and reorders packets in both directions, by seed."""

    def __init__(
        self, device: Device, seed: int, *, loss: float = 0.0, reorder: float = 0.0, duplicate: float = 0.0
    ) -> None:
        """Probabilities per packet. A reordered packet comes after its successor; without one it is lost."""
        self._device = device
        self._random = random.Random(seed)
        self._loss, self._reorder, self._duplicate = loss, reorder, duplicate
        self._inbound: deque[bytes] = deque()
        self._held_in: bytes | None = None
        self._held_out: Packet | None = None
        self.faults = 0
        """Packets that met with something."""

    def fileno(self) -> int:
        """See `Device`."""
        return self._device.fileno()

    def read(self) -> bytes | None:
        """See `Device`."""
        while True:
            if self._inbound:
                return self._inbound.popleft()
            packet = self._device.read()
            if packet is None:
                return None
            match self._fault():
                case "lose":
                    continue
                case "hold" if self._held_in is None:
                    self._held_in = packet
                    continue
                case "repeat":
                    self._inbound.append(packet)
            if self._held_in is not None:
                self._inbound.append(self._held_in)
                self._held_in = None
            return packet

    def write(self, packet: Packet) -> bool:
        """See `Device`."""
        match self._fault():
            case "lose":
                return True
            case "hold" if self._held_out is None:
                self._held_out = [bytes(piece) for piece in packet]
                return True
            case "repeat":
                self._device.write(packet)
        taken = self._device.write(packet)
        if taken and self._held_out is not None:
            self._device.write(self._held_out)
            self._held_out = None
        return taken

    def close(self) -> None:
        """See `Device`."""
        self._device.close()

    def _fault(self) -> str:
        draw = self._random.random()
        for name, share in (("lose", self._loss), ("hold", self._reorder), ("repeat", self._duplicate)):
            if draw < share:
                self.faults += 1
                return name
            draw -= share
        return ""
