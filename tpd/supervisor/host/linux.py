"""The real host: every change journaled, made, and undone from its journal entry."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tpd.supervisor.host import addresses, command, journal, plan, policy
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
        self._seen: tuple[object, ...] = ()

    # ---- the Host protocol

    async def restore(self) -> list[str]:
        done = []
        for path in journal.left_behind(self._journals):
            boot, entries = journal.read(path)
            await self._undo(entries, same_boot=boot == journal.boot_id())
            journal.remove(path)
            done.append(f"undid what an earlier tpd had left of the connection on {path.stem}")
        return done

    async def open(self, owner: str, uid: int) -> Device:
        async with netlink() as kernel:
            facts = await kernel.facts()
            upstreams = await self.upstreams()
            networks = [own.network for own in facts.connected] + list(facts.routed)
            networks += [policy.single(address) for address in (*facts.gateways, *upstreams.addresses)]
            slot = addresses.choose_slot(
                used=self._open,
                tables=facts.tables,
                devices=facts.devices,
                networks=networks,
                ipv6=facts.ipv6,
            )
            record = Journal(self._journals / f"{slot.device}.jsonl")
            record.record("device", device=slot.device)
            try:
                fd = open_tun(slot.device)
            except OSError as error:
                record.finish()
                raise HostError(
                    f"cannot open a TUN device ({error.strerror}); is /dev/net/tun there, and the module tun loaded?"
                ) from error
            opened = _Opened(slot, owner, uid, record, 0)
            self._open[slot.index] = opened
            try:
                opened.ifindex = await kernel.set_up(slot, MTU)
                record.record("table", table=slot.table)
                await self._arrange(kernel, opened)
                for rule in plan.rules(slot):
                    record.record("rule", **_rule_entry(rule))
                    await kernel.add_rule(rule)
            except BaseException:
                os.close(fd)
                await self.close(slot)
                raise
        log.info("opened %s for %s: %s, dns %s", slot.device, owner, slot.tun_address, slot.dns_address)
        return Device(slot=slot, fd=fd, mtu=MTU, offload=True)

    async def note_worker(self, slot: Slot, pid: int) -> None:
        self._open[slot.index].journal.record("worker", pid=pid, started=_started(pid))

    async def apply(self, slot: Slot, wish: Wish) -> Applied:
        opened = self._open.get(slot.index)
        if opened is None or opened.closing:
            raise HostError("the connection is being closed")
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
        await self._names(opened, granted)
        name = opened.adapter.value if opened.adapter else ""
        for text in granted.refused:
            log.info("%s: refused: %s", slot.device, text)
        return Applied(resolver=name, refused=granted.refused, granted=granted)

    async def withdraw(self, slot: Slot) -> None:
        opened = self._open.get(slot.index)
        if opened is None:
            return
        opened.closing = True
        if self._file.holder == slot:
            self._file.holder = None
        await self._undo([entry for entry in opened.journal.entries if entry["kind"] not in ("device", "worker")])
        async with netlink() as kernel:
            await self._arrange_others(kernel, opened)

    async def close(self, slot: Slot) -> None:
        opened = self._open.get(slot.index)
        if opened is None:
            return
        await self.withdraw(slot)
        await self._undo([entry for entry in opened.journal.entries if entry["kind"] == "device"])
        opened.journal.finish()
        del self._open[slot.index]
        log.info("closed %s", slot.device)

    async def upstreams(self) -> Upstreams:
        found = choice.upstreams(await self._probe(ask_bus=False))
        # systemd-resolved lists our own server and search domains among everybody's.
        servers = {opened.slot.dns_address for opened in self._open.values()}
        search = {name for opened in self._open.values() for name in opened.granted.search}
        return Upstreams(
            tuple(address for address in found.addresses if address not in servers),
            tuple(name for name in found.search if name not in search),
        )

    def changed(self) -> bool:
        before, self._seen = self._seen, tuple(_signature(path) for path in (self._resolv_conf, _UPLINKS))
        return before != self._seen

    # ---- routes and filter

    def _beside(self, opened: _Opened) -> list[Holder]:
        """The other connections that have something."""
        return [one.holder() for one in self._open.values() if one is not opened and not one.closing]

    async def _arrange(self, kernel: Netlink, opened: _Opened) -> None:
        """Its table and filter as they must be beside the others'."""
        granted = plan.beside(opened.holder(), self._beside(opened))
        await self._filter(opened, granted)
        await self._routes(kernel, opened, granted)

    async def _arrange_others(self, kernel: Netlink, changed: _Opened) -> None:
        """After one has got or lost something. A device that has just died must not stop it."""
        for opened in self._open.values():
            if opened is changed or opened.closing:
                continue
            try:
                await self._arrange(kernel, opened)
            except (HostError, OSError) as error:
                log.warning("%s: %s", opened.slot.device, error)

    async def _routes(self, kernel: Netlink, opened: _Opened, granted: Granted) -> None:
        current = await kernel.routes(opened.slot, opened.ifindex)
        add, remove = plan.diff(current, plan.routes(opened.slot, granted))
        for route in add:
            await kernel.add_route(route, opened.slot, opened.ifindex)
        for route in remove:
            await kernel.remove_route(route, opened.slot, opened.ifindex)

    async def _filter(self, opened: _Opened, granted: Granted) -> None:
        nft = command.find("nft")
        if nft is None:
            return  # the device's own rp_filter and forwarding settings remain; see docs/host.md
        script = plan.filter_text(opened.slot, granted)
        if script == opened.filter:
            return
        opened.journal.record("nft", table=plan.filter_table(opened.slot))
        await command.run(nft, "-f", "-", text=script)
        opened.filter = script

    # ---- names

    async def _names(self, opened: _Opened, granted: Granted) -> None:
        if not granted.dns:
            await self._forget_names(opened)
            return
        if opened.adapter is None:
            probe = await self._probe(ask_bus=True)
            adapter = choice.choose(probe)
            log.info("resolver %s, because %s", adapter.value or "none", probe.text())
            if adapter is Adapter.NONE:
                raise HostError(f"cannot tell this laptop about the cluster's names: make {self._resolv_conf} writable")
            opened.adapter = adapter
        adapter_object = self._resolved if opened.adapter is Adapter.RESOLVED else self._file
        await adapter_object.apply(opened.slot, opened.ifindex, granted.search, granted.domains, opened.journal)

    async def _forget_names(self, opened: _Opened) -> None:
        if opened.adapter is Adapter.RESOLVED:
            await self._resolved.withdraw(opened.slot, opened.ifindex, opened.journal)
        elif opened.adapter is Adapter.FILE:
            await self._file.withdraw(opened.slot, opened.ifindex, opened.journal)
        opened.adapter = None

    async def _probe(self, *, ask_bus: bool) -> choice.Probe:
        found = file.snapshot(self._resolv_conf)
        text: str | None = None if found["type"] == "absent" else found["text"]
        for opened in self._open.values():
            before = self._file.original(opened.journal.entries)
            text = before if before is not None else text
        try:
            uplinks = _UPLINKS.read_text(encoding="utf-8", errors="replace")
        except OSError:
            uplinks = None
        folder = self._resolv_conf.parent
        return choice.Probe(
            resolv_conf=text,
            link=str(found.get("target", "")),
            uplink_conf=uplinks,
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

    async def _undo(self, entries: list[Entry], *, same_boot: bool = True) -> None:
        async with netlink() as kernel:
            for entry in reversed(entries):
                if not same_boot and entry["kind"] != "file":
                    continue  # the kernel forgot it with the reboot
                try:
                    await self._undo_one(kernel, entry)
                except (HostError, OSError) as error:
                    log.error("cannot undo %s: %s", entry["kind"], error)

    async def _undo_one(self, kernel: Netlink, entry: Entry) -> None:
        match entry["kind"]:
            case "device":
                await kernel.remove_link(entry["device"])
            case "worker":
                _end_worker(entry["pid"], entry["started"])
            case "table":
                await kernel.empty_table(entry["table"])
            case "rule":
                await kernel.remove_rule(plan.Rule(**{key: entry[key] for key in entry if key != "kind"}))
            case "nft":
                nft = command.find("nft")
                if nft is not None:  # "add" first: deleting a table that is not there would be an error
                    await command.run(nft, f"add table inet {entry['table']}; delete table inet {entry['table']}")
            case "file":
                file.undo(entry)
            case "resolved":
                await resolved.undo(entry)
            case other:
                log.error("the journal has an entry of an unknown kind %r", other)


def _signature(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _rule_entry(rule: plan.Rule) -> dict[str, Any]:
    return {"version": rule.version, "priority": rule.priority, "table": rule.table, "suppress": rule.suppress}


def _started(pid: int) -> str:
    """When the process started, in ticks: with the pid it names one process for good (proc_pid_stat(5))."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return ""


def _end_worker(pid: int, started: str) -> None:
    if started and _started(pid) == started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
