"""UDP (RFC 768): associations of a source with a destination, until they have been idle for a while."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from tunnel.endpoint import Refusal
from tunnel.stack import fragments, icmp, ip, vnet
from tunnel.stack.address import Address, host_text
from tunnel.stack.checksum import checksum, fold, ones_sum, pseudo_sum
from tunnel.stack.ip import IpPacket
from tunnel.stack.limits import Limits
from tunnel.stack.vocabulary import Packet, UdpHandler

HEADER: Final = struct.Struct("!HHHH")
"""source port, destination port, length, checksum."""
MAX_PAYLOAD: Final = 65507
"""Largest datagram over IPv4, and what we keep to for IPv6."""


class UdpAssociation:
    """All datagrams between one address and port of the laptop and one destination."""

    def __init__(self, table: UdpTable, key: bytes, addresses: bytes, ports: tuple[int, int], quote: bytes) -> None:
        self.key = key
        self.addresses = addresses
        self.ports = ports
        self.quote = quote
        """Start of the datagram that made it, for an ICMP answer."""
        self.used = 0.0
        """When a datagram last came or went."""
        self.sent = False
        """A datagram went to the laptop since `used` was last brought up to date."""
        self.handler: UdpHandler | None = None
        self._table = table
        half = len(addresses) >> 1
        self._reverse = addresses[half:] + addresses[:half]
        self._pseudo = pseudo_sum(self._reverse, ip.UDP, 0)
        self._prefix = vnet.checksum_header(20 if half == 4 else 40, 6)

    @property
    def local(self) -> Address:
        """The destination that the laptop sends to."""
        return Address(host_text(self.addresses[len(self.addresses) >> 1 :]), self.ports[1])

    @property
    def remote(self) -> Address:
        """The laptop's side."""
        return Address(host_text(self.addresses[: len(self.addresses) >> 1]), self.ports[0])

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """A datagram from the destination to the laptop. Above 65,507 bytes, or once expired: dropped, as UDP may."""
        self._table.send(self, data)

    def refuse(self, refusal: Refusal) -> None:
        """Tell the laptop by ICMP that the destination does not take this; the association ends without a call."""
        self._table.refuse(self, refusal)

    def close(self) -> None:
        """Forget the association without a word; the next datagram makes a new one. No further call comes."""
        self._table.close(self)

    def build(self, data: bytes | bytearray | memoryview, mtu: int, identification: int) -> list[Packet]:
        """The packets of one datagram: one, or fragments where the device is too small."""
        length = HEADER.size + len(data)
        pseudo = fold(self._pseudo + length)
        v4 = len(self.addresses) == 8
        if length + (20 if v4 else 40) <= mtu:
            header = HEADER.pack(self.ports[1], self.ports[0], length, pseudo)
            return [[self._prefix + ip.packet_for(self._reverse, ip.UDP, length) + header, data]]
        blank = HEADER.pack(self.ports[1], self.ports[0], length, 0)
        check = checksum((blank, data), pseudo) or 0xFFFF
        payload = HEADER.pack(self.ports[1], self.ports[0], length, check) + data
        return list(fragments.split(self._reverse, ip.UDP, payload, mtu, identification))


class UdpTable:
    """All associations of one stack, the least recently used first."""

    def __init__(
        self,
        limits: Limits,
        on_udp: Callable[[UdpAssociation], UdpHandler],
        output: Callable[[Packet], None],
    ) -> None:
        self._limits = limits
        self._on_udp = on_udp
        self._output = output
        self._associations: OrderedDict[bytes, UdpAssociation] = OrderedDict()
        self._identification = 0

    def __len__(self) -> int:
        return len(self._associations)

    def receive(self, view: IpPacket, now: float) -> None:
        """A UDP packet arrived; with segmentation offload it may hold several datagrams."""
        packet, start, end = view.packet, view.start, view.end
        if end - start < HEADER.size:
            return
        source, destination, length, check = HEADER.unpack_from(packet, start)
        gso_type, gso_size = vnet.gso(packet)
        if gso_type == vnet.GSO_UDP_L4:
            length = end - start
        if not HEADER.size <= length <= end - start:
            return
        end = start + length
        if (
            not packet[0] & (vnet.NEEDS_CSUM | vnet.DATA_VALID)
            and check
            and fold(pseudo_sum(view.addresses, ip.UDP, length) + ones_sum(memoryview(packet)[start:end])) != 0xFFFF
        ):
            return
        key = view.addresses + packet[start : start + 4]
        association = self._associations.get(key)
        if association is None:
            association = self._open(view, key, (source, destination))
        else:
            self._associations.move_to_end(key)
        association.used = now
        data = memoryview(packet)[start + HEADER.size : end]
        if gso_type != vnet.GSO_UDP_L4 or not 0 < gso_size < len(data):
            if association.handler is not None:
                association.handler.on_datagram(data)
            return
        for offset in range(0, len(data), gso_size):
            if association.handler is not None:
                association.handler.on_datagram(data[offset : offset + gso_size])

    def _open(self, view: IpPacket, key: bytes, ports: tuple[int, int]) -> UdpAssociation:
        if len(self._associations) >= self._limits.max_associations:
            self._expire(next(iter(self._associations.values())))
        quote = view.packet[vnet.HEADER_LEN : min(view.end, vnet.HEADER_LEN + icmp.QUOTE)]
        association = UdpAssociation(self, key, view.addresses, ports, quote)
        self._associations[key] = association
        handler = self._on_udp(association)
        if key in self._associations:  # unless it was refused at once
            association.handler = handler
        return association

    def unreachable(self, addresses: bytes, source: int, destination: int) -> None:
        """The laptop's socket is closed: a datagram of ours met no one."""
        key = ip.reverse(addresses) + destination.to_bytes(2, "big") + source.to_bytes(2, "big")
        association = self._associations.get(key)
        if association is not None:
            self._expire(association)

    def send(self, association: UdpAssociation, data: bytes | bytearray | memoryview) -> None:
        """See `UdpAssociation.send`."""
        if self._associations.get(association.key) is not association or len(data) > MAX_PAYLOAD:
            return
        association.sent = True
        self._identification += 1
        for packet in association.build(data, self._limits.mtu, self._identification):
            self._output(packet)

    def refuse(self, association: UdpAssociation, refusal: Refusal) -> None:
        """See `UdpAssociation.refuse`."""
        if self.close(association):
            self._output(icmp.unreachable(association.quote, association.addresses, refusal))

    def close(self, association: UdpAssociation) -> bool:
        """See `UdpAssociation.close`; False when it was gone already."""
        association.handler = None
        if self._associations.get(association.key) is not association:
            return False
        del self._associations[association.key]
        return True

    def next_timeout(self) -> float | None:
        """When the least recently used association will have been idle for long enough."""
        if not self._associations:
            return None
        return next(iter(self._associations.values())).used + self._limits.udp_idle

    def on_timeout(self, now: float) -> None:
        """Expire what is idle."""
        while self._associations:
            association = next(iter(self._associations.values()))
            if association.sent:
                # Datagrams towards the laptop are only noted; this is where they count, at the price of a longer stay.
                association.sent = False
                association.used = now
                self._associations.move_to_end(association.key)
            elif association.used + self._limits.udp_idle > now:
                return
            else:
                self._expire(association)

    def _expire(self, association: UdpAssociation) -> None:
        handler = association.handler
        self.close(association)
        if handler is not None:
            handler.on_expired()
