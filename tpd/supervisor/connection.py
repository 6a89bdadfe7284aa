"""One caller's connection: its device, its worker, and what is known about it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from tpd.supervisor import users
from tpd.supervisor.host.types import Applied, Device, Host, HostError, Slot, Upstreams, Wish
from tpd.supervisor.worker import Worker, WorkerGone
from tunnel.proto import daemon_pb2 as pb
from tunnel.version import VERSION

log = logging.getLogger("tpd.connection")

QUIT_GRACE = 6.0
"""Seconds for the worker to release engagements and session before its control socket is closed."""
STATUS_GRACE = 2.5
"""Seconds for the worker to say how it is."""

Progress = Callable[[pb.Event], Awaitable[None]]


class Connection:
    """From the first connect to the undoing of everything. `lock`: the host changes one thing at a time."""

    def __init__(self, user: users.User, request: pb.Request, host: Host, lock: asyncio.Lock, module: str) -> None:
        self.user = user
        self.name = request.connect.name
        self.result: pb.ConnectResult | None = None
        self._applied = Applied()
        self.worker: Worker | None = None
        self._request = request
        self._host = host
        self._lock = lock
        self._module = module
        self._device: Device | None = None
        self._config: pb.HostConfig | None = None
        self._upstreams = Upstreams()
        self._starting = asyncio.Lock()
        self._closing: asyncio.Task[None] | None = None
        self.ended = False
        self.problem = ""
        """Why something of it may still be on the host, after `close`."""
        self.undone = asyncio.Event()
        """Nothing of it is on the host."""
        self.undone.set()

    @property
    def label(self) -> str:
        """How others are told about it."""
        return self.name or f"of {users.name(self.user.uid)}"

    async def start(self) -> None:
        """Make the device and start the worker. Raises HostError or WorkerGone; then `close` undoes what was done."""
        async with self._starting:
            await self._start()
        if self.ended:  # `close` has waited, and undoes it now
            raise WorkerGone("the connection was quit while it was being made; run: tpctl connect")

    async def _start(self) -> None:
        async with self._lock:
            self._device = device = await self._host.open(self.label, self.user.uid)
            self.undone.clear()
            self._upstreams = upstreams = await self._host.upstreams()
        try:
            environment = users.environment(self.user, self._request.connect.environment)
            folder = users.log_folder(environment)
            start = pb.WorkerStart(
                version=VERSION,
                device=device.slot.device,
                mtu=device.mtu,
                offload=device.offload,
                tun_address=str(device.slot.tun_address),
                dns_address=str(device.slot.dns_address),
                tun_address6=str(device.slot.tun_address6 or ""),
                upstreams=upstreams_message(upstreams),
                log_file=f"{folder}/{device.slot.device}.log" if folder else "",
                machine_id=_machine_id(),
            )
            self.worker = await Worker.start(
                user=self.user,
                environment=environment,
                start=start,
                tun=device.fd,
                on_host=self._on_host,
                module=self._module,
            )
            await self._host.note_worker(device.slot, self.worker.pid)
        finally:
            os.close(device.fd)  # the worker's own copy keeps the device; when the worker ends, the device ends
        log.info("%s: worker %d of %s", device.slot.device, self.worker.pid, users.name(self.user.uid))

    async def run(self) -> None:
        """Serve the worker until it is gone."""
        assert self.worker is not None
        await self.worker.run()

    async def _on_host(self, config: pb.HostConfig) -> None:
        self._config = config
        reply = await self._apply(config)
        if self.worker is not None:
            self.worker.send(pb.ToWorker(host_reply=reply))

    async def _apply(self, config: pb.HostConfig) -> pb.HostReply:
        device = self._device
        reply = pb.HostReply(id=config.id)
        if device is None:
            reply.error = "the connection is being closed"
            return reply
        connect = self._request.connect
        wish = Wish(
            subnets=tuple(config.subnets),
            bypass=tuple(config.bypass),
            search=tuple(config.search),
            domains=tuple(config.domains),
            dns=config.dns,
            named=frozenset((*connect.mapped_namespaces, connect.namespace)),
        )
        try:
            async with self._lock:
                applied = await self._host.apply(device.slot, wish)
        except (HostError, OSError) as error:
            log.error("%s: %s", device.slot.device, error)
            reply.error = str(error)
        else:
            self._applied = applied
            reply.resolver = applied.resolver
            reply.refused.extend(applied.refused)
        return reply

    async def ask(self, request: pb.Request, on_progress: Progress) -> pb.Event:
        """Have the worker answer. Raises WorkerGone."""
        if self.worker is None or self.ended:
            raise WorkerGone("the connection has ended; run: tpctl connect")
        event = await self.worker.ask(request, on_progress)
        if event.WhichOneof("event") == "connect":
            self._tell_what_was_done(event.connect)
        return event

    def _tell_what_was_done(self, result: pb.ConnectResult) -> None:
        """The worker says what it asked for; its user must see what the host has."""
        del result.subnets[:], result.left_alone[:]
        result.subnets.extend(str(subnet) for subnet in self._applied.granted.subnets)
        result.left_alone.extend(self._applied.refused)

    async def status(self) -> pb.ConnectionStatus:
        """What the worker says about itself, or why it says nothing."""
        status = pb.ConnectionStatus(state="connecting")
        if self.result is None:
            status.connection.name = self.name
            return status
        try:
            async with asyncio.timeout(STATUS_GRACE):
                event = await self.ask(pb.Request(version=VERSION, status=pb.Status()), _ignore)
        except TimeoutError:
            status.state, status.reason = "failed", "the session worker does not answer; run: tpctl quit"
        except WorkerGone as gone:
            status.state, status.reason = "failed", str(gone)
        else:
            if event.status.connections:
                status.CopyFrom(event.status.connections[0])
            elif event.WhichOneof("event") == "error":
                status.reason = event.error.text
        if not status.connection.name:
            status.connection.CopyFrom(self.result)
        self._tell_what_was_done(status.connection)
        del status.dns_domains[:]
        status.dns_domains.extend(self._applied.granted.domains)
        status.resolver = self._applied.resolver
        status.worker_pid = self.worker.pid if self.worker else 0
        return status

    async def resolvers_changed(self) -> None:
        """Somebody rewrote the laptop's resolver configuration: ours goes on top of it again."""
        if self._device is None or self.worker is None:
            return
        async with self._lock:
            upstreams = await self._host.upstreams()
        if upstreams != self._upstreams:
            self._upstreams = upstreams
            self.worker.send(pb.ToWorker(upstreams=upstreams_message(upstreams)))
        if self._config is not None:
            await self._apply(self._config)

    async def quit(self, on_progress: Progress) -> list[str]:
        """Let the worker release what it holds in the cluster, within a bound. What it could not release, as texts."""
        if self.worker is None:
            return []  # it has not begun to hold anything

        async def tell(event: pb.Event) -> None:
            with suppress(OSError):  # a caller that went away does not stop it
                await on_progress(event)

        try:
            async with asyncio.timeout(QUIT_GRACE):
                event = await self.ask(pb.Request(version=VERSION, quit=pb.Quit()), tell)
                return list(event.quit.not_released)
        except TimeoutError:
            problem = "the worker did not answer in time"
        except WorkerGone as gone:
            problem = str(gone)
        log.warning("%s: the worker did not say that it released everything", self.label)
        return [f"{self.label}: {problem}"]

    async def close(self) -> None:
        """End the worker and undo everything on the host. Repeatable: the worker's end and a quit may both come here,
        and both return when it is done. What fails is logged, and is the `problem`."""
        self.ended = True
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name=f"undo {self.label}")
        await asyncio.shield(self._closing)  # whoever is cancelled meanwhile must not leave the host half undone

    async def _close(self) -> None:
        async with self._starting:
            device, self._device = self._device, None
        if device is not None:
            # Routes and names first: while the worker ends, the laptop already works as before.
            await self._undo(self._host.withdraw, device.slot)
        if self.worker is not None:
            await self.worker.end()
        if device is not None:
            self.problem = await self._undo(self._host.close, device.slot)
        self.undone.set()

    async def _undo(self, step: Callable[[Slot], Awaitable[None]], slot: Slot) -> str:
        """Why it failed, or nothing: the next step is due all the same, and no other connection suffers."""
        try:
            async with self._lock:
                await step(slot)
        except HostError as error:
            log.error("%s of %s: %s", slot.device, self.label, error)
            return str(error)
        except Exception as error:  # a bug in one step must not keep the next from putting the laptop right
            log.exception("%s of %s: %s", slot.device, self.label, step.__name__)
            return f"not everything of {slot.device} could be undone: {error or type(error).__name__}"
        return ""


def upstreams_message(upstreams: Upstreams) -> pb.Upstreams:
    """The laptop's own resolvers, as the worker is told."""
    return pb.Upstreams(addresses=[str(address) for address in upstreams.addresses], search=upstreams.search)


async def _ignore(event: pb.Event) -> None:
    """Progress that nobody waits for."""


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
