"""The systemd-resolved adapter: servers and domains of our own link, over D-Bus (org.freedesktop.resolve1(5)).

The calls go through busctl, which comes with systemd: it is smaller and safer in a root process than a D-Bus library.
What is set belongs to the link and goes with it.
"""

from __future__ import annotations

from tpd.supervisor.host import command
from tpd.supervisor.host.journal import Entry, Journal
from tpd.supervisor.host.types import HostError, Slot

_AF_INET = "2"


async def answers() -> bool:
    """Whether systemd-resolved is on the bus."""
    busctl = command.find("busctl")
    if busctl is None:
        return False
    try:
        await command.run(
            busctl,
            "--system",
            "--timeout=2",
            "get-property",
            "org.freedesktop.resolve1",
            "/org/freedesktop/resolve1",
            "org.freedesktop.resolve1.Manager",
            "LLMNR",
            deadline=3,
        )
    except HostError:
        return False
    return True


async def _call(method: str, signature: str, *arguments: str) -> None:
    busctl = command.find("busctl")
    if busctl is None:
        raise HostError("busctl is missing; install systemd's tools or point resolv.conf at your resolvers")
    await command.run(
        busctl,
        "--system",
        "--timeout=3",
        "call",
        "org.freedesktop.resolve1",
        "/org/freedesktop/resolve1",
        "org.freedesktop.resolve1.Manager",
        method,
        signature,
        "--",
        *arguments,
    )


class Resolved:
    """Sets our link's server and domains; every other name keeps going where it went."""

    async def apply(
        self, slot: Slot, ifindex: int, search: tuple[str, ...], domains: tuple[str, ...], journal: Journal
    ) -> None:
        journal.record("resolved", device=slot.device, ifindex=ifindex)
        index = str(ifindex)
        await _call("SetLinkDNS", "ia(iay)", index, "1", _AF_INET, "4", *(str(b) for b in slot.dns_address.packed))
        names = [(name, "false") for name in search]
        names += [(name, "true") for name in domains if name not in search]
        await _call("SetLinkDomains", "ia(sb)", index, str(len(names)), *(word for pair in names for word in pair))
        await _call("SetLinkDefaultRoute", "ib", index, "false")
        for method in ("SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"):
            await _call(method, "is", index, "no")

    async def withdraw(self, slot: Slot, ifindex: int, journal: Journal) -> None:
        for entry in journal.entries:
            if entry["kind"] == "resolved":
                await undo(entry)


async def undo(entry: Entry) -> None:
    """Forget what was set for the link. A link that is gone took it along."""
    try:
        await _call("RevertLink", "i", str(entry["ifindex"]))
    except HostError:
        return
