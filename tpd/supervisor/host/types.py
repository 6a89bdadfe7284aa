"""The values that the host's parts hand one another."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def collapse(networks: Iterable[Network]) -> list[Network]:
    """The fewest networks with the same addresses, both families."""
    found = list(networks)
    four = ipaddress.collapse_addresses(n for n in found if isinstance(n, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(n for n in found if isinstance(n, ipaddress.IPv6Network))
    return [*four, *six]


class HostError(Exception):
    """The host could not be changed as asked. The text is one sentence for the user."""


@dataclass(frozen=True)
class Connected:
    """A network that the laptop itself is on."""

    network: Network
    device: str


@dataclass(frozen=True)
class Facts:
    """What the laptop's network looks like, without our own devices and tables."""

    connected: tuple[Connected, ...] = ()
    gateways: tuple[Address, ...] = ()
    routed: tuple[Network, ...] = ()
    """Destinations of the main table, without the default routes."""
    devices: frozenset[str] = frozenset()
    tables: frozenset[int] = frozenset()
    """Tables that have rules or routes, whoever made them."""
    ipv6: bool = False
    """Whether devices can have IPv6 addresses."""


@dataclass(frozen=True)
class Upstreams:
    """The laptop's own resolvers and DNS search list, as they were before any change of ours."""

    addresses: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slot:
    """A connection's number and all that follows from it."""

    index: int
    tun_address: ipaddress.IPv4Address
    dns_address: ipaddress.IPv4Address
    tun_address6: ipaddress.IPv6Address | None = None

    @property
    def device(self) -> str:
        """The device's name."""
        return f"tp{self.index}"

    @property
    def table(self) -> int:
        """The routing table of its own."""
        return 7000 + self.index

    @property
    def priority(self) -> int:
        """Of the first of two rules; the second follows at once."""
        return 7000 + 2 * self.index


@dataclass(frozen=True)
class Device:
    """An open TUN device. `fd` belongs to whoever holds this value, once."""

    slot: Slot
    fd: int
    mtu: int
    offload: bool


@dataclass(frozen=True)
class Wish:
    """What a worker wants of the host, as a whole, in text as it came."""

    subnets: tuple[str, ...] = ()
    bypass: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    dns: bool = False
    named: frozenset[str] = frozenset()
    """Namespaces that the user named (-n, --mapped-namespaces): these may shadow a public top-level domain."""


@dataclass(frozen=True)
class Granted:
    """What the policy lets a connection have."""

    subnets: tuple[Network, ...] = ()
    throw: tuple[Network, ...] = ()
    """Must not go into the device although a granted subnet covers it, and its own carrier addresses."""
    carriers: tuple[Network, ...] = ()
    """Addresses that its carriers run to, each a network of one: they go into no connection's device."""
    search: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    dns: bool = False
    refused: tuple[str, ...] = ()
    """One text per refused part: what and why."""


@dataclass(frozen=True)
class Holder:
    """One connection, as what is decided about all of them sees it."""

    slot: Slot
    owner: str
    """Names it in texts. Two may have the same: the caller chooses it."""
    uid: int
    granted: Granted = field(default_factory=Granted)


@dataclass(frozen=True)
class Applied:
    """The answer to a wish."""

    resolver: str = ""
    """The adapter that tells the host's programs, or empty when name resolution was not taken over."""
    refused: tuple[str, ...] = ()
    granted: Granted = field(default_factory=Granted)


class Host(Protocol):
    """The laptop as the supervisor sees it. Implementations: `linux.LinuxHost`, `memory.MemoryHost`.

    All of it is called from one task at a time. Raises HostError.
    """

    async def restore(self) -> list[str]:
        """Undo what an earlier tpd left behind; one text per connection. Call it before anything else."""
        ...

    async def open(self, owner: str, uid: int) -> Device:
        """Make a device in a free slot, with its table and rules. `owner` names it in messages to others; `uid` is the
        user whose connection it is."""
        ...

    async def note_worker(self, slot: Slot, pid: int) -> None:
        """Remember the process that holds the device, so that a later start can end it."""
        ...

    async def apply(self, slot: Slot, wish: Wish) -> Applied:
        """Make the host look as the wish says, as far as the policy allows. Applying again changes nothing."""
        ...

    async def withdraw(self, slot: Slot) -> None:
        """Undo what other programs of the laptop notice: names, rules, routes, filter. The device stays."""
        ...

    async def close(self, slot: Slot) -> None:
        """Undo everything of this slot, newest first. Harmless when repeated.

        Raises HostError when something could not be undone: all else is, and that is tried again at each `tend` and
        at the next start. The slot is not given to another connection before it is done.
        """
        ...

    async def upstreams(self) -> Upstreams:
        """The laptop's own resolvers now, seen past our own changes."""
        ...

    async def tend(self) -> bool:
        """To be called every few seconds: put back what others removed of ours, try again what could not be undone.

        Whether wishes should be applied anew: somebody changed the resolver's files, or the last attempt failed.
        """
        ...
