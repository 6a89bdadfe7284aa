"""The packet filter of one connection: a table of its own, made by the program nft."""

from __future__ import annotations

import errno
import os
import socket
import struct

from tpd.supervisor.host import command

_NETLINK_NETFILTER = 12
_GET_TABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_REQUEST, _ERROR = 1, 2  # NLM_F_REQUEST, NLMSG_ERROR
_INET, _NAME = 1, 1  # NFPROTO_INET, NFTA_TABLE_NAME
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_DEADLINE = 1.0
"""Seconds. The kernel answers while it is asked."""


def available() -> bool:
    """Without the program, the device's own rp_filter and forwarding settings remain; see docs/host.md."""
    return command.find("nft") is not None


async def load(script: str) -> None:
    """Run a script as one transaction. Raises HostError."""
    nft = command.find("nft")
    if nft is not None:
        await command.run(nft, "-f", "-", text=script)


async def remove(table: str) -> None:
    """Harmless when it is gone. Raises HostError."""
    # "add" first: deleting a table that is not there would be an error
    await load(f"add table inet {table}; delete table inet {table}")


def has_table(table: str) -> bool:
    """Whether there is a table of that name. Asks the kernel: the program would cost more than all else that is looked
    at every few seconds. Raises OSError."""
    name = table.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(name), _NAME) + name
    attribute += bytes(-len(attribute) % 4)
    body = struct.pack("=BBH", _INET, 0, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as sock:
        sock.settimeout(_DEADLINE)
        sock.send(_HEADER.pack(_HEADER.size + len(body), _GET_TABLE, _REQUEST, 1, 0) + body)
        reply = sock.recv(8192)
    if _HEADER.unpack_from(reply)[1] != _ERROR:
        return True
    code = -struct.unpack_from("=i", reply, _HEADER.size)[0]
    if code == errno.ENOENT:
        return False
    raise OSError(code, os.strerror(code))
