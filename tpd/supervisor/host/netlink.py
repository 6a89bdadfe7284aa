"""Reading and changing links, addresses, rules and routes: the only module that imports pyroute2."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tpd.supervisor.host.plan import MAIN, Route, Rule
from tpd.supervisor.host.types import Address, Connected, Facts, HostError, Network, Slot

TX_QUEUE = 10_000
"""Packets: with the kernel's 500, a burst of datagrams to a stalled reader costs the next connection's first packet."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_UNICAST, _THROW = 1, 9  # RTN_UNICAST, RTN_THROW of rtnetlink(7)
_SCOPE_LINK, _PROTO_STATIC = 253, 4
_GONE = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)


class Netlink:
    """One netlink socket, in the network namespace that the process was in when it was opened."""

    def __init__(self, api: AsyncIPRoute) -> None:
        self._api = api

    # ---- reading

    async def facts(self) -> Facts:
        """The laptop's network without devices named tpN and tables of ours."""
        names: dict[int, str] = {}
        async for link in await self._api.link("dump"):
            names[link["index"]] = link.get("ifname")
        foreign = {index for index, name in names.items() if not _is_ours(name)}
        connected: list[Connected] = []
        async for address in await self._api.addr("dump"):
            if address["index"] not in foreign:
                continue
            text = address.get("local") or address.get("address")
            network = ipaddress.ip_interface(f"{text}/{address['prefixlen']}").network
            if not network.is_loopback and not network.is_link_local:
                connected.append(Connected(network, names[address["index"]]))
        gateways: list[Address] = []
        routed: list[Network] = []
        tables: set[int] = set()
        async for route in await self._api.route("dump"):
            table = route.get("table") or route["table"]
            tables.add(table)
            if table != MAIN or route["type"] not in (_UNICAST,):
                continue
            hops = [route, *(route.get("multipath") or ())]
            for hop in hops:
                gateway = hop.get("gateway")
                if gateway:
                    gateways.append(ipaddress.ip_address(gateway))
            network = _destination(route)
            if network.prefixlen and route.get("oif") in foreign and not network.is_link_local:
                routed.append(network)
        for rule in await self.rules():
            tables.add(rule.table)
        return Facts(
            connected=tuple(dict.fromkeys(connected)),
            gateways=tuple(gateway for gateway in dict.fromkeys(gateways) if not gateway.is_link_local),
            routed=tuple(dict.fromkeys(routed)),
            devices=frozenset(names.values()),
            tables=frozenset(tables),
            ipv6=_ipv6_enabled(),
        )

    async def rules(self) -> list[Rule]:
        """Everybody's, both families."""
        found = []
        for version, family in _FAMILIES.items():
            async for rule in await self._api.rule("dump", family=family):
                suppress = rule.get("suppress_prefixlen")
                found.append(
                    Rule(version, rule.get("priority") or 0, rule.get("table") or rule["table"], suppress == 0)
                )
        return found

    async def routes(self, slot: Slot, ifindex: int) -> list[Route]:
        """What a connection's table holds now."""
        found = []
        for version, family in _FAMILIES.items():
            async for route in await self._api.route("dump", family=family, table=slot.table):
                if (route.get("table") or route["table"]) != slot.table:
                    continue
                device = slot.device if route.get("oif") == ifindex else ""
                source = str(route.get("prefsrc") or "") if device else ""
                found.append(Route(version, str(_destination(route)), device, source))
        return found

    async def index(self, device: str) -> int | None:
        """The interface's number, or None when there is none of that name."""
        found = await self._api.link_lookup(ifname=device)
        return int(found[0]) if found else None

    # ---- changing

    async def set_up(self, slot: Slot, mtu: int) -> int:
        """Give the new device its addresses and switch it on; its number."""
        ifindex = await self.index(slot.device)
        if ifindex is None:
            raise HostError(f"the device {slot.device} disappeared while it was being made; try again")
        _quiet(slot.device)
        await self._change("link", "set", index=ifindex, mtu=mtu, txqlen=TX_QUEUE)
        await self._change("addr", "replace", index=ifindex, address=str(slot.tun_address), prefixlen=32)
        if slot.tun_address6:
            await self._change(
                "addr",
                "replace",
                index=ifindex,
                family=socket.AF_INET6,
                address=str(slot.tun_address6),
                prefixlen=128,
                flags=0x02,  # IFA_F_NODAD: nobody else is on this device
            )
        await self._change("link", "set", index=ifindex, state="up")
        return ifindex

    async def add_rule(self, rule: Rule) -> None:
        """Raises HostError."""
        values: dict[str, Any] = {"family": _FAMILIES[rule.version], "priority": rule.priority, "table": rule.table}
        if rule.suppress:
            values["suppress_prefixlen"] = 0
        await self._change("rule", "add", action="FR_ACT_TO_TBL", **values)

    async def remove_rule(self, rule: Rule) -> None:
        """Harmless when it is gone."""
        await self._remove(
            "rule",
            family=_FAMILIES[rule.version],
            priority=rule.priority,
            table=rule.table,
            action="FR_ACT_TO_TBL",
            **({"suppress_prefixlen": 0} if rule.suppress else {}),
        )

    async def add_route(self, route: Route, slot: Slot, ifindex: int) -> None:
        """Repeatable. Raises HostError."""
        await self._change("route", "replace", **self._route(route, slot.table, ifindex))

    async def remove_route(self, route: Route, slot: Slot, ifindex: int) -> None:
        """Harmless when it is gone."""
        await self._remove("route", **self._route(route, slot.table, ifindex))

    @staticmethod
    def _route(route: Route, table: int, ifindex: int) -> dict[str, Any]:
        values: dict[str, Any] = {
            "family": _FAMILIES[route.version],
            "dst": route.destination,
            "table": table,
            "proto": _PROTO_STATIC,
        }
        if route.device:
            values |= {"oif": ifindex, "type": _UNICAST}
            if route.version == 4:
                values["scope"] = _SCOPE_LINK
            if route.source:
                values["prefsrc"] = route.source
        else:
            values["type"] = _THROW
        return values

    async def empty_table(self, table: int) -> None:
        """Remove what a table of ours still holds, both families."""
        for version, family in _FAMILIES.items():
            left = [route async for route in await self._api.route("dump", family=family, table=table)]
            for route in left:
                if (route.get("table") or route["table"]) != table:
                    continue
                await self._remove(
                    "route",
                    family=family,
                    dst=str(_destination(route)),
                    table=table,
                    type=route["type"],
                    **({"oif": route.get("oif")} if route.get("oif") and version == 4 else {}),
                )

    async def remove_link(self, device: str) -> None:
        """Harmless when it is gone."""
        ifindex = await self.index(device)
        if ifindex is not None:
            await self._remove("link", index=ifindex)

    async def _change(self, what: str, how: str, **values: Any) -> None:
        try:
            await getattr(self._api, what)(how, **values)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return
            raise HostError(
                f"the kernel refused to {how} a {what} ({error.args[-1]}); is another VPN at work?"
            ) from error

    async def _remove(self, what: str, **values: Any) -> None:
        try:
            await getattr(self._api, what)("del", **values)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise HostError(f"the kernel refused to remove a {what} ({error.args[-1]})") from error


@asynccontextmanager
async def netlink() -> AsyncIterator[Netlink]:
    """A netlink socket for one piece of work. Raises HostError, also for what the kernel refuses to tell."""
    async with AsyncExitStack() as stack:
        try:
            api = await stack.enter_async_context(AsyncIPRoute())
        except OSError as error:
            raise HostError(f"cannot ask the kernel about the network: {error.strerror}") from error
        try:
            yield Netlink(api)
        except NetlinkError as error:
            raise HostError(f"the kernel does not say what the network looks like ({error.args[-1]})") from error


def _is_ours(name: str) -> bool:
    return name.startswith("tp") and name[2:].isdigit()


def _destination(route: Any) -> Network:
    destination = route.get("dst")
    if destination is None:
        return ipaddress.ip_network("0.0.0.0/0" if route["family"] == socket.AF_INET else "::/0")
    return ipaddress.ip_network(f"{destination}/{route['dst_len']}")


def _ipv6_enabled() -> bool:
    try:
        return Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").read_text(encoding="ascii").strip() == "0"
    except OSError:
        return False


def _quiet(device: str) -> None:
    """Settings of the device itself, gone with it: strict reverse-path filter, no forwarding, no autoconfiguration."""
    for family, key, value in (
        ("ipv4", "rp_filter", "1"),
        ("ipv4", "forwarding", "0"),
        ("ipv6", "addr_gen_mode", "1"),
        ("ipv6", "accept_ra", "0"),
        ("ipv6", "forwarding", "0"),
    ):
        path = Path("/proc/sys/net", family, "conf", device, key)
        try:
            path.write_text(value, encoding="ascii")
        except OSError:
            continue  # a read-only /proc/sys, or no IPv6: the nft table says the same
