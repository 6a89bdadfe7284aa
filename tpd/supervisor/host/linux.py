"""The real host: every change journaled, made, and undone from its journal entry."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tpd.supervisor.host import addresses, journal, nft, plan, policy, undo
from tpd.supervisor.host.journal import Entry, Journal
from tpd.supervisor.host.netlink import Netlink, netlink
from tpd.supervisor.host.resolver import choice, file, resolved
from tpd.supervisor.host.resolver.choice import Adapter
from tpd.supervisor.host.types import Applied, Device, Granted, Holder, HostError, Slot, Upstreams, Wish
from tunnel.tun.linux import open_tun

MTU = 65535
_UPLINKS = Path("/run/systemd/resolve/resolv.conf")

log = logging.getLogger("tpd.host")


class _Opened:
    """What we know about one of our own devices."""

    def __init__(self, slot: Slot, owner: str, uid: int, journal: Journal, ifindex: int) -> None:
        self.slot = slot
        self.owner = owner
        self.uid = uid
        self.journal = journal
        self.ifindex = ifindex
        self.granted = Granted()
        self.adapter: Adapter | None = None
        self.closing = False
        self.filter = ""
        """The nft script that was run last."""
        self.applied = False
        """A wish has been granted once."""
        self.due = False
        """The last wish could not be applied."""
        self.complaint = ""
        """Why something of it could not be put back at the last look."""

    def holder(self) -> Holder:
        return Holder(self.slot, self.owner, self.uid, self.granted)


class LinuxHost:
    """See `types.Host`."""

    def __init__(self, *, state: Path, policy_file: Path, resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._journals = state / "journal"
        self._policy_file = policy_file
        self._resolv_conf = resolv_conf
        self._file = file.ResolvConfFile(resolv_conf)
        self._resolved = resolved.Resolved()
        self._open: dict[int, _Opened] = {}
        self._left: dict[Path, undo.Left] = {}
        """By the journal that lists it: of closed connections, and of an earlier tpd."""
        self._seen: tuple[str, str | None] = ("", None)
        """Texts that say who the laptop's resolvers are, without what is ours."""

    # ---- the Host protocol

    async def restore(self) -> list[str]:
        done = []
        for path in journal.left_behind(self._journals):
            boot, entries = journal.read(path)
            left = await undo.undo(entries, same_boot=boot == journal.boot_id())
            if self._finish(path, left):
                done.append(f"undid what an earlier tpd had left of the connection on {path.stem}")
            else:
                done.append(f"not all that an earlier tpd had left of the connection on {path.stem} is undone yet")
        return done

    async def open(self, owner: str, uid: int) -> Device:
        async with netlink() as kernel:
            facts = await kernel.facts()
            upstreams = await self.upstreams()
            networks = [own.network for own in facts.connected] + list(facts.routed)
            networks += [policy.single(address) for address in (*facts.gateways, *upstreams.addresses)]
            slot = addresses.choose_slot(
                used={*self._open, *journal.slots(self._journals)},
                tables=facts.tables,
                devices=facts.devices,
                networks=networks,
                ipv6=facts.ipv6,
            )
            record = Journal(self._journals / f"{slot.device}.jsonl")
            try:
                record.record("device", device=slot.device)
                fd = _tun(slot)
            except BaseException:
                record.finish()
                raise
            if not self._open:
                self._news()
            opened = _Opened(slot, owner, uid, record, 0)
            self._open[slot.index] = opened
            try:
                opened.ifindex = await kernel.set_up(slot, MTU)
                record.record("table", table=slot.table)
                await self._arrange(kernel, opened)
                await self._rules(kernel, opened, [])
            except BaseException:
                os.close(fd)
                with suppress(HostError):  # it is logged
                    await self.close(slot)
                raise
        log.info("opened %s for %s: %s, dns %s", slot.device, owner, slot.tun_address, slot.dns_address)
        return Device(slot=slot, fd=fd, mtu=MTU, offload=True)

    async def note_worker(self, slot: Slot, pid: int) -> None:
        self._open[slot.index].journal.record("worker", pid=pid, started=undo.started(pid))

    async def apply(self, slot: Slot, wish: Wish) -> Applied:
        opened = self._open.get(slot.index)
        if opened is None or opened.closing:
            raise HostError("the connection is being closed")
        opened.due = opened.applied
        granted = await self._grant(opened, wish)
        await self._names(opened, granted)
        opened.applied, opened.due = True, False
        name = opened.adapter.value if opened.adapter else ""
        for text in granted.refused:
            log.info("%s: refused: %s", slot.device, text)
        return Applied(resolver=name, refused=granted.refused, granted=granted)

    async def _grant(self, opened: _Opened, wish: Wish) -> Granted:
        async with netlink() as kernel:
            facts = await kernel.facts()
            granted = policy.decide(
                wish,
                me=opened.holder(),
                facts=facts,
                upstreams=await self.upstreams(),
                policy=self._policy(),
                others=self._beside(opened),
            )
            opened.granted = granted
            await self._arrange(kernel, opened)
            await self._arrange_others(kernel, opened)
        return granted

    async def withdraw(self, slot: Slot) -> None:
        opened = self._open.get(slot.index)
        if opened is None:
            return
        opened.closing = True
        if self._file.holder == slot:
            self._file.holder = None
        await self._undo(opened, lambda entry: entry["kind"] not in ("device", "worker"))
        if len(self._open) > 1:
            try:
                async with netlink() as kernel:
                    await self._arrange_others(kernel, opened)
            except HostError as error:  # `tend` does it
                log.warning("%s", error)

    async def close(self, slot: Slot) -> None:
        opened = self._open.get(slot.index)
        if opened is None:
            return
        await self.withdraw(slot)
        left = await self._undo(opened, lambda entry: entry["kind"] != "worker")
        del self._open[slot.index]
        opened.journal.close()
        if not self._finish(opened.journal.path, left):
            raise HostError(f"not everything of {slot.device} could be undone: {'; '.join(left.why)}")
        log.info("closed %s", slot.device)

    async def upstreams(self) -> Upstreams:
        return choice.upstreams(
            await self._probe(ask_bus=False),
            ours={opened.slot.dns_address for opened in self._open.values()},
            searched={name for opened in self._open.values() for name in opened.granted.search},
        )

    async def tend(self) -> bool:
        for path, before in list(self._left.items()):
            self._finish(path, await undo.undo(before.entries))
        if not self._open:
            return False
        try:
            async with netlink() as kernel:
                await self._put_back(kernel)
        except (HostError, OSError) as error:
            log.warning("cannot look after the rules and routes: %s", error)
        return self._news() or any(opened.due for opened in self._open.values())

    # ---- what others do to the host

    async def _put_back(self, kernel: Netlink) -> None:
        """Others may flush all rules, routes (systemd-networkd, when it starts anew) or nft tables (a firewall)."""
        rules = await kernel.rules()
        for opened in self._open.values():
            if opened.closing:
                continue
            try:
                if opened.filter and not nft.has_table(plan.filter_table(opened.slot)):
                    opened.filter = ""
                changed = await self._arrange(kernel, opened)
                if await self._rules(kernel, opened, rules) or changed:
                    log.warning("%s: put back what somebody had removed", opened.slot.device)
                opened.complaint = ""
            except (HostError, OSError) as error:
                if opened.complaint != str(error):
                    log.warning("%s: cannot put back what somebody has removed: %s", opened.slot.device, error)
                opened.complaint = str(error)

    def _news(self) -> bool:
        """Whether somebody else wrote what says who the laptop's resolvers are.

        By the texts: systemd-resolved writes its file anew at each call of ours.
        """
        current = file.snapshot(self._resolv_conf)
        original = file.without_us(self._resolv_conf, current, self._edits())
        before, self._seen = self._seen, (original["text"], _uplinks())
        return before != self._seen or self._file.gone(current)

    # ---- rules, routes and filter

    async def _rules(self, kernel: Netlink, opened: _Opened, have: list[plan.Rule]) -> bool:
        """Add what is missing, and say whether something was."""
        missing = [rule for rule in plan.rules(opened.slot) if rule not in have]
        for rule in missing:
            opened.journal.record("rule", **_rule_entry(rule))
            await kernel.add_rule(rule)
        return bool(missing)

    def _beside(self, opened: _Opened) -> list[Holder]:
        """The other connections that have something."""
        return [one.holder() for one in self._open.values() if one is not opened and not one.closing]

    async def _arrange(self, kernel: Netlink, opened: _Opened) -> bool:
        """Its table and filter as they must be beside the others', and whether that was a change."""
        granted = plan.beside(opened.holder(), self._beside(opened))
        filtered = await self._filter(opened, granted)
        return await self._routes(kernel, opened, granted) or filtered

    async def _arrange_others(self, kernel: Netlink, changed: _Opened) -> None:
        """After one has got or lost something. A device that has just died must not stop it."""
        for opened in self._open.values():
            if opened is changed or opened.closing:
                continue
            try:
                await self._arrange(kernel, opened)
            except (HostError, OSError) as error:
                log.warning("%s: %s", opened.slot.device, error)

    async def _routes(self, kernel: Netlink, opened: _Opened, granted: Granted) -> bool:
        current = await kernel.routes(opened.slot, opened.ifindex)
        add, remove = plan.diff(current, plan.routes(opened.slot, granted))
        for route in add:
            await kernel.add_route(route, opened.slot, opened.ifindex)
        for route in remove:
            await kernel.remove_route(route, opened.slot, opened.ifindex)
        return bool(add or remove)

    async def _filter(self, opened: _Opened, granted: Granted) -> bool:
        script = plan.filter_text(opened.slot, granted)
        if script == opened.filter or not nft.available():
            return False
        opened.journal.record("nft", table=plan.filter_table(opened.slot))
        await nft.load(script)
        opened.filter = script
        return True

    # ---- names

    async def _names(self, opened: _Opened, granted: Granted) -> None:
        if not granted.dns:
            await self._forget_names(opened)
            return
        probe = await self._probe(ask_bus=True)
        adapter = choice.choose(probe)
        if adapter is not opened.adapter:
            log.info("%s: resolver %s, because %s", opened.slot.device, adapter.value or "none", probe.text())
            if adapter is Adapter.NONE:
                raise HostError(f"cannot tell this laptop about the cluster's names: make {self._resolv_conf} writable")
            await self._forget_names(opened)
            opened.adapter = adapter
        if adapter is Adapter.RESOLVED:
            await self._resolved.apply(opened.slot, opened.ifindex, granted.search, granted.domains, opened.journal)
        else:
            await self._file.apply(opened.slot, granted.search, opened.journal, self._edits())

    async def _forget_names(self, opened: _Opened) -> None:
        if self._file.holder == opened.slot:
            self._file.holder = None
        await self._undo(opened, lambda entry: entry["kind"] in ("file", "resolved"))
        opened.adapter = None

    def _edits(self) -> list[Entry]:
        """All edits of resolv.conf that are not undone."""
        entries = [entry for left in self._left.values() for entry in left.entries]
        entries += [entry for opened in self._open.values() for entry in opened.journal.entries]
        return [entry for entry in entries if entry["kind"] == "file"]

    async def _probe(self, *, ask_bus: bool) -> choice.Probe:
        found = file.snapshot(self._resolv_conf)
        original = file.without_us(self._resolv_conf, found, self._edits())
        text: str | None = None if original["type"] == "absent" else original["text"]
        folder = self._resolv_conf.parent
        return choice.Probe(
            resolv_conf=text,
            link=str(original.get("target", "")),
            uplink_conf=_uplinks(),
            resolved=await resolved.answers() if ask_bus else False,
            writable=os.access(folder, os.W_OK) or os.access(self._resolv_conf, os.W_OK),
        )

    def _policy(self) -> policy.Policy:
        try:
            text = self._policy_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return policy.Policy()
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"cannot read {self._policy_file}: {error}") from error
        status = self._policy_file.stat()
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise HostError(
                f"{self._policy_file} must belong to root and be writable by nobody else; chown and chmod it"
            )
        try:
            return policy.parse_policy(yaml.safe_load(text))
        except (yaml.YAMLError, policy.PolicyError) as error:
            raise HostError(f"{self._policy_file}: {' '.join(str(error).split())}") from error

    # ---- undoing

    async def _undo(self, opened: _Opened, which: Callable[[Entry], bool]) -> undo.Left:
        """Undo these of its changes. Those that cannot be undone stay among its entries, for the next attempt."""
        entries = opened.journal.entries
        left = await undo.undo([entry for entry in entries if which(entry)])
        for why in left.why:
            log.error("%s: cannot undo %s", opened.slot.device, why)
        opened.journal.entries = [entry for entry in entries if not which(entry) or entry in left.entries]
        return left

    def _finish(self, path: Path, left: undo.Left) -> bool:
        """Forget a journal when nothing is left to undo; else keep it and remember what is left."""
        if not left.entries:
            try:
                journal.remove(path)
            except OSError as error:
                left = undo.Left([], (f"{path}: {error.strerror}",))
            else:
                self._left.pop(path, None)
                return True
        before = self._left.get(path)
        if before is None or before.why != left.why:
            log.error("%s is kept, and tried again: %s", path, "; ".join(left.why))
        self._left[path] = left
        return False


def _tun(slot: Slot) -> int:
    try:
        return open_tun(slot.device)
    except OSError as error:
        raise HostError(
            f"cannot open a TUN device ({error.strerror}); is /dev/net/tun there, and the module tun loaded?"
        ) from error


def _uplinks() -> str | None:
    try:
        return _UPLINKS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _rule_entry(rule: plan.Rule) -> dict[str, Any]:
    return {"version": rule.version, "priority": rule.priority, "table": rule.table, "suppress": rule.suppress}
