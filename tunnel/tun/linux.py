"""TUN on Linux with segmentation and checksum offload (linux/Documentation/networking/tuntap.rst, if_tun.h).

The root supervisor opens it, and sets addresses, MTU (65535), queue length (10000) and routes; the worker gets the
descriptor and wraps it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

from tunnel.stack import vnet
from tunnel.stack.vocabulary import Packet
from tunnel.tun import Device

_TUNSETIFF: Final = 0x400454CA
_TUNGETIFF: Final = 0x800454D2
_TUNSETOFFLOAD: Final = 0x400454D0
_TUNSETVNETHDRSZ: Final = 0x400454D8

_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000

_F_CSUM: Final = 0x01
_F_TSO4: Final = 0x02
_F_TSO6: Final = 0x04
_F_USO4: Final = 0x20
_F_USO6: Final = 0x40

_IFREQ: Final = struct.Struct("16sH22x")
_LONGEST: Final = vnet.HEADER_LEN + 65535 + 1

_DROPPED: Final = frozenset({errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM, errno.EMSGSIZE, errno.EFAULT})
"""What a write may answer to one packet without the device being gone: it is a loss, and TCP repeats."""

_UNREADABLE: Final = frozenset({errno.EINVAL, errno.EIO, errno.ENOBUFS, errno.ENOMEM})
"""What a read may answer to one packet that the kernel cannot hand over: the packet is gone, the device is not."""
_MOST_UNREADABLE: Final = 64
"""So many in a row are no packets any more: the device itself is broken."""


def open_tun(name: str) -> int:
    """Make or attach the TUN `name` (at most 15 characters) and switch its offloads on; a descriptor, non-blocking.

    Needs CAP_NET_ADMIN. Raises OSError. The device goes when its last descriptor is closed.
    """
    packed = name.encode()
    if not 0 < len(packed) < 16:
        raise ValueError(f"a device name has 1 to 15 bytes: {name!r}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _IFREQ.pack(packed, _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(descriptor, _TUNSETVNETHDRSZ, struct.pack("i", vnet.HEADER_LEN))
        offloads = _F_CSUM | _F_TSO4 | _F_TSO6
        try:
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, offloads | _F_USO4 | _F_USO6)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            fcntl.ioctl(descriptor, _TUNSETOFFLOAD, offloads)  # Linux before 6.2 knows no USO
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class LinuxTun(Device):
    """A TUN by its descriptor, which it owns from now on."""

    def __init__(self, descriptor: int) -> None:
        """Raises OSError when the descriptor is no TUN, ValueError when it was not opened as `open_tun` does."""
        request = fcntl.ioctl(descriptor, _TUNGETIFF, bytes(_IFREQ.size))
        name, flags = _IFREQ.unpack(request)
        wanted = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        if flags & wanted != wanted:
            raise ValueError(f"TUN flags {flags:#x} lack some of {wanted:#x}")
        os.set_blocking(descriptor, False)
        self.name: str = name.rstrip(b"\0").decode()
        self.dropped = 0
        """Packets that the device did not take."""
        self.unread = 0
        """Packets that it could not give."""
        self._descriptor = descriptor

    def fileno(self) -> int:
        """See `Device`."""
        return self._descriptor

    def read(self) -> bytes | None:
        """See `Device`."""
        for _ in range(_MOST_UNREADABLE - 1):
            try:
                return self._read()
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                self.unread += 1
        return self._read()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._descriptor, _LONGEST)
        except BlockingIOError:
            return None

    def write(self, packet: Packet) -> bool:
        """See `Device`."""
        try:
            os.writev(self._descriptor, packet)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _DROPPED:
                raise
            self.dropped += 1
        return True

    def close(self) -> None:
        """See `Device`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
