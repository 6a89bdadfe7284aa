"""The laptop's TCP/IP stack: terminates what the laptop's kernel sends into the TUN. Theory: docs/stack.md.

* **peer**: the kernel on the other side of the device; there is exactly one.
* **connection**: TCP with the peer; `local` is the destination the laptop dialled, `remote` the laptop's side.
* **association**: UDP datagrams between one (source, destination).
* **packet**: virtio header and IP packet, in pieces that are written with one `os.writev`.
* **super-segment**: a TCP packet of up to 64 KiB that stands for many segments (TSO).

Pure: packets, `now` and randomness come in; packets, calls of handlers and the next timeout go out.
"""

from tunnel.stack.address import Address
from tunnel.stack.connection import TcpConnection
from tunnel.stack.icmp import EchoRequest
from tunnel.stack.limits import Limits
from tunnel.stack.stack import Stack
from tunnel.stack.udp import UdpAssociation
from tunnel.stack.vocabulary import Packet, StackHandler, UdpHandler

__all__ = [
    "Address",
    "EchoRequest",
    "Limits",
    "Packet",
    "Stack",
    "StackHandler",
    "TcpConnection",
    "UdpAssociation",
    "UdpHandler",
]
