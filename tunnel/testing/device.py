"""A device without root: a pair of sockets that keep packets apart."""

from __future__ import annotations

import os
import socket

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
