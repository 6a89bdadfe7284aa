"""The systemd-resolved adapter: servers and domains of our own link, over D-Bus (org.freedesktop.resolve1(5)).

What is set belongs to the link and goes with it; every name outside its domains keeps going where it went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tpd.supervisor.host.journal import Entry, Journal
from tpd.supervisor.host.types import HostError, Slot

_AF_INET = 2
DEADLINE = 3.0
"""Seconds for all calls together; each takes about a millisecond."""

Call = tuple[str, str, tuple[Any, ...]]
"""Method, signature, arguments."""


def calls(ifindex: int, slot: Slot, search: Sequence[str], domains: Sequence[str]) -> list[Call]:
    """What to tell systemd-resolved about the link. Pure. A domain with `True` only routes; without, it is searched."""
    names = [(name, False) for name in search] + [(name, True) for name in domains if name not in search]
    off = [
        (method, "is", (ifindex, "no"))
        for method in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS")
    ]
    return [
        *off,
        ("SetLinkDefaultRoute", "ib", (ifindex, False)),
        ("SetLinkDomains", "ia(sb)", (ifindex, names)),
        ("SetLinkDNS", "ia(iay)", (ifindex, [(_AF_INET, slot.dns_address.packed)])),
    ]


async def answers() -> bool:
    """Whether systemd-resolved is on the system bus. Asking it starts it where the bus can."""
    try:
        await _make([("GetLink", "i", (1,))])
    except HostError as error:
        return "NoSuchLink" in str(error)  # it has an opinion about links, so it is there
    return True


class Resolved:
    """Sets our link's server and domains."""

    async def apply(
        self, slot: Slot, ifindex: int, search: tuple[str, ...], domains: tuple[str, ...], journal: Journal
    ) -> None:
        journal.record("resolved", device=slot.device, ifindex=ifindex)
        await _make(calls(ifindex, slot, search, domains))


async def undo(entry: Entry) -> None:
    """Forget what was set for the link. A link that is gone took it along."""
    try:
        await _make([("RevertLink", "i", (entry["ifindex"],))])
    except HostError:
        return


async def _make(wanted: Sequence[Call]) -> None:
    """Make the calls in order. Raises HostError with the bus's own error name."""
    from jeepney import DBusAddress, DBusErrorResponse, MessageType, new_method_call
    from jeepney.auth import AuthenticationError
    from jeepney.io.asyncio import open_dbus_router

    manager = DBusAddress(
        "/org/freedesktop/resolve1",
        bus_name="org.freedesktop.resolve1",
        interface="org.freedesktop.resolve1.Manager",
    )
    try:
        async with asyncio.timeout(DEADLINE), open_dbus_router(bus="SYSTEM") as router:
            for method, signature, arguments in wanted:
                reply = await router.send_and_get_reply(new_method_call(manager, method, signature, arguments))
                if reply.header.message_type is MessageType.error:
                    raise HostError(f"systemd-resolved refuses {method}: {DBusErrorResponse(reply)}")
    except (OSError, EOFError, AuthenticationError) as error:
        raise HostError(f"systemd-resolved cannot be reached over D-Bus: {error}") from error
