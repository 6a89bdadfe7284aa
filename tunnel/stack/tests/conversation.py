"""A conversation with one stack, segment by segment: `says` puts one in, `hears` names what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunnel.endpoint import Broken
from tunnel.stack import EchoRequest, Limits, Stack, TcpConnection, UdpAssociation, ip
from tunnel.stack.segment import ACK, FIN, HEADER, PSH, RST, SYN, SegmentBuilder, syn_options

LAPTOP = bytes([10, 99, 0, 1])
HOST = bytes([10, 99, 1, 1])
ISN = 5000
"""The stack's initial sequence number in every conversation."""
IRS = 1000
"""The laptop's."""

_NAMES = {"S": SYN, "R": RST, "A": ACK, "F": FIN, "P": PSH}


@dataclass
class Listener:
    """Notes every call; consumes only when told."""

    connection: TcpConnection
    got: bytearray = field(default_factory=bytearray)
    calls: list[str] = field(default_factory=list)
    closed: list[Broken | None] = field(default_factory=list)

    def on_data(self, data: memoryview) -> None:
        """Note it."""
        self.got += data
        self.calls.append(f"data {len(data)}")

    def on_eof(self) -> None:
        """Note it."""
        self.calls.append("eof")

    def on_writable(self) -> None:
        """Note it."""
        self.calls.append("writable")

    def on_closed(self, broken: Broken | None) -> None:
        """Note it."""
        self.calls.append("closed" if broken is None else f"closed {broken.name}")
        self.closed.append(broken)


class Datagrams:
    """Notes every call of one association."""

    def __init__(self, association: UdpAssociation) -> None:
        self.association = association
        self.calls: list[bytes | str] = []

    def on_datagram(self, data: memoryview) -> None:
        """Note it."""
        self.calls.append(bytes(data))

    def on_expired(self) -> None:
        """Note it."""
        self.calls.append("expired")


class Conversation:
    """Sequence numbers here count from the first byte after the SYN on either side."""

    def __init__(self, limits: Limits | None = None, *, port: int = 40000) -> None:
        self.stack = Stack(self, random32=lambda: ISN, limits=limits)
        self.now = 0.0
        self.port = port
        self.listeners: list[Listener] = []
        self.associations: list[Datagrams] = []
        self.wakes: list[bool] = []
        self.stack.on_wake(self.wakes.append)

    def on_tcp(self, connection: TcpConnection) -> Listener:
        """Note it."""
        self.listeners.append(Listener(connection))
        return self.listeners[-1]

    def on_udp(self, association: UdpAssociation) -> Datagrams:
        """Note it."""
        self.associations.append(Datagrams(association))
        return self.associations[-1]

    def on_echo(self, request: EchoRequest) -> None:
        """No one answers."""

    @property
    def listener(self) -> Listener:
        """Of the newest connection."""
        return self.listeners[-1]

    @property
    def connection(self) -> TcpConnection:
        """The newest."""
        return self.listeners[-1].connection

    def syn(self, *, mss: int = 1460, scale: int | None = 7, irs: int = IRS, port: int | None = None) -> None:
        """The laptop opens."""
        builder = SegmentBuilder(LAPTOP + HOST, port or self.port, 80, 1460)
        self.stack.receive(builder.build(irs, 0, SYN, 64000, 0, syn_options(mss, scale)), self.now)

    def says(self, flags: str, seq: int = 0, ack: int = 0, data: bytes = b"", window: int = 64000) -> None:
        """A segment of the laptop. `window` in bytes (the conversation's scale is 7)."""
        bits = sum(_NAMES[name] for name in flags)
        builder = SegmentBuilder(LAPTOP + HOST, self.port, 80, 65535)
        header = builder.build(IRS + 1 + seq, ISN + 1 + ack, bits, window >> 7, len(data))
        self.stack.receive(header + data, self.now)

    def hears(self) -> list[str]:
        """Everything that the stack has to say, as "FLAGS seq ack [len]"; ICMP as "icmp TYPE CODE"."""
        return [self._name(b"".join(packet)) for packet in self.stack.flush(self.now)]

    def hears_anything(self) -> None:
        """Flush until there is nothing left, whatever it is."""
        while self.stack.ready:
            self.stack.flush(self.now)

    def window(self) -> int:
        """Flush; the window field of the last segment."""
        packet = b"".join(self.stack.flush(self.now)[-1])
        return int(HEADER.unpack_from(packet, 30)[6])

    def _name(self, packet: bytes) -> str:
        view = ip.parse(packet)
        assert view is not None
        if view.protocol == ip.ICMP:
            return f"icmp {packet[view.start]} {packet[view.start + 1]}"
        if view.protocol == ip.UDP:
            return f"udp {view.end - view.start - 8}"
        _, _, sequence, acknowledgement, offset, flags, _, _, _ = HEADER.unpack_from(packet, view.start)
        size = view.end - view.start - (offset >> 4 << 2)
        names = "".join(name for name, bit in _NAMES.items() if flags & bit and bit != PSH)
        where = (sequence - ISN - 1 + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        what = (acknowledgement - IRS - 1 + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if not flags & ACK:
            return f"{names} {where}"
        return f"{names} {where} {what}" + (f" {size}" if size else "")

    def passes(self, seconds: float) -> list[str]:
        """Time passes, timers run; everything that the stack says meanwhile."""
        end = self.now + seconds
        said = self.hears()
        while (at := self.stack.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.stack.on_timeout(self.now)
            said += self.hears()
        self.now = end
        return said

    def established(self) -> Conversation:
        """Through the handshake."""
        self.syn()
        self.connection.accept()
        assert self.hears() == ["SA -1 0"]
        self.says("A")
        assert self.hears() == []
        return self
