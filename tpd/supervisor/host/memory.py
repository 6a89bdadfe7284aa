"""A host that only remembers: the same decisions as the real one, without root and without changing anything."""

from __future__ import annotations

import os

from tpd.supervisor.host import addresses, plan, policy
from tpd.supervisor.host.types import Applied, Device, Facts, Granted, Holder, HostError, Slot, Upstreams, Wish


class MemoryHost:
    """See `types.Host`. Devices are one end of a pipe."""

    def __init__(self, facts: Facts | None = None, upstreams: Upstreams | None = None) -> None:
        self.facts = facts or Facts()
        self.own_upstreams = upstreams or Upstreams()
        self.policy = policy.Policy()
        self.granted: dict[Slot, Granted] = {}
        self.users: dict[Slot, tuple[str, int]] = {}
        """Owner and uid."""
        self.workers: dict[Slot, int] = {}
        self.news = False

    async def restore(self) -> list[str]:
        return []

    async def open(self, owner: str, uid: int) -> Device:
        slot = addresses.choose_slot(
            used=[one.index for one in self.granted],
            tables=self.facts.tables,
            devices=self.facts.devices,
            networks=[own.network for own in self.facts.connected] + list(self.facts.routed),
            ipv6=self.facts.ipv6,
        )
        ours, theirs = os.pipe()
        os.close(theirs)
        self.granted[slot], self.users[slot] = Granted(), (owner, uid)
        return Device(slot=slot, fd=ours, mtu=65535, offload=True)

    async def note_worker(self, slot: Slot, pid: int) -> None:
        self.workers[slot] = pid

    async def apply(self, slot: Slot, wish: Wish) -> Applied:
        if slot not in self.granted:
            raise HostError("the connection is being closed")
        me, others = self._holders(slot)
        granted = policy.decide(
            wish, me=me, facts=self.facts, upstreams=self.own_upstreams, policy=self.policy, others=others
        )
        self.granted[slot] = granted
        return Applied(resolver="memory" if granted.dns else "", refused=granted.refused, granted=granted)

    async def withdraw(self, slot: Slot) -> None:
        if slot in self.granted:
            self.granted[slot] = Granted()

    async def close(self, slot: Slot) -> None:
        self.granted.pop(slot, None)
        self.users.pop(slot, None)
        self.workers.pop(slot, None)

    async def upstreams(self) -> Upstreams:
        return self.own_upstreams

    async def tend(self) -> bool:
        news, self.news = self.news, False
        return news

    def _holders(self, slot: Slot) -> tuple[Holder, list[Holder]]:
        """That connection, and the others."""
        every = {one: Holder(one, *self.users[one], granted) for one, granted in self.granted.items()}
        return every.pop(slot), list(every.values())

    def text(self) -> str:
        """The kernel state that the real host would have, as text."""
        lines: list[str] = []
        for slot in sorted(self.granted, key=lambda slot: slot.index):
            lines += [rule.text() for rule in plan.rules(slot)]
            lines += [route.text(slot.table) for route in plan.routes(slot, plan.beside(*self._holders(slot)))]
        return "\n".join(lines)
