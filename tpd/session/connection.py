"""One connection: its session, its network, its engagements; and what the caller may ask about it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tpd.session.carrier_hosts import CarrierHosts
from tpd.session.connect import Opened, carrier_addresses, discard, open_session
from tpd.session.control import Control, HostRefused, Progress
from tpd.session.dns.names import Names, Route, names_of, route
from tpd.session.dns.server import DnsServer
from tpd.session.dns.upstream import Upstream
from tpd.session.errors import SessionError, from_kube
from tpd.session.keeper import Keeper, Trouble
from tpd.session.kube import paths
from tpd.session.outbound import Outbound
from tpd.session.peer_link import Shared
from tpd.session.settings import Settings, difference, environment_of, kubeconfigs, resolve
from tpd.session.subnets import host_config, subnets_of
from tpd.tlds import is_taken
from tunnel.aio.stack_driver import StackDriver
from tunnel.aio.tasks import Tasks
from tunnel.kube.errors import KubeError
from tunnel.kube.kubeconfig import Credentials, load
from tunnel.mux.link import Link
from tunnel.proto import daemon_pb2, manager_pb2
from tunnel.stack import Limits, Stack
from tunnel.tun import Device

if TYPE_CHECKING:
    from tpd.session.engagements.engagements import Engagements
    from tpd.session.live import LiveSession
    from tunnel.aio.link_client import LinkState
    from tunnel.kube.api import Api

log = logging.getLogger(__name__)

_HELLO_LIMIT = 10.0
"""Seconds from the certificate to the manager's first announcement."""
_NO_LINE = "no connection to the traffic-manager"
_HOST_PAUSE = 5.0
"""Seconds until a change of the host that failed is tried again."""
_MOST_BYPASSED = 64
"""Addresses of the API server and its proxy that are remembered, the newest."""
_CLOSE_LIMIT = 4.0
"""Seconds in which `quit` releases what we hold; the leases end the rest."""


class Connection:
    """Made at the worker's start; `connect` brings it to life, `close` ends it."""

    def __init__(self, start: daemon_pb2.WorkerStart, device: Device, control: Control, tasks: Tasks) -> None:
        self._start = start
        self._control = control
        self._tasks = tasks
        self.upstream = Upstream(start.upstreams.addresses)
        self._host_search = list(start.upstreams.search)
        self._dns = DnsServer(
            query_cluster=self._query_cluster,
            cluster_is_near=lambda: (link := self.link) is not None and link.attached,
            upstream=self.upstream,
            tasks=tasks,
            randomness=random.SystemRandom(),
        )
        outbound = Outbound(
            link=lambda: self.link,
            dns_address=start.dns_address,
            ask=self._dns.ask,
            later=asyncio.get_running_loop().call_later,
        )
        limits = Limits(mtu=start.mtu) if start.mtu else Limits()
        self.stack = Stack(outbound, random32=lambda: secrets.randbits(32), limits=limits)
        self._hosts = CarrierHosts(
            self.upstream,
            search=lambda: self._host_search,
            is_clusters=self._is_clusters,
            on_addresses=self._bypass_too,
        )
        self._driver = StackDriver(device, self.stack, on_lost=self._device_lost)
        self.api: Api | None = None
        self.settings: Settings | None = None
        self.live: LiveSession | None = None
        self.user = ""
        self.engagements: Engagements | None = None
        self._cluster: manager_pb2.Cluster | None = None
        self._first_cluster: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bypass: list[str] = []
        self._applied: daemon_pb2.HostConfig | None = None
        self._host_changed = asyncio.Event()
        self._linked = asyncio.Event()
        """The manager has answered the hello of this session's link."""
        self._state = "connecting"
        self._reason = ""
        self._device_is_lost = False
        self._since = 0.0
        self._connecting = asyncio.Lock()
        self._shared = Shared()
        self._keeper: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[list[str]] | None = None

    @property
    def link(self) -> Link | None:
        """The link to the manager, if there is a session."""
        return self.live.link if self.live is not None else None

    def _query_cluster(self, message: bytes, done: Callable[[bytes | None], None]) -> None:
        link = self.link
        if link is None:
            done(None)
        else:
            link.query(message, done)

    # connect

    async def connect(self, request: daemon_pb2.Connect, progress: Progress) -> daemon_pb2.ConnectResult:
        """Bring the connection up, or say that it is up already. Raises `SessionError`."""
        async with self._connecting:
            if self._closing is not None:
                raise SessionError("the connection has ended; run: tpctl connect", retryable=True)
            environment = environment_of(request, os.environ)
            files = [Path(file) for file in kubeconfigs(request, environment)]
            try:
                found = load(files, request.context)
            except KubeError as error:
                raise from_kube(error, "reading the kubeconfig") from error
            settings = resolve(request, found)
            if self.settings is not None:
                if differs := difference(self.settings, settings):
                    raise SessionError(differs)
                if self._state != "connected":
                    raise SessionError(
                        f"connection {settings.name} is {self._state}: {self._why() or 'no reason is known'};"
                        " it goes on by itself, or run: tpctl quit",
                        daemon_pb2.CLUSTER,
                        retryable=True,
                    )
                result = self.result()
                result.existed = True
                return result
            if os.path.isdir(request.working_directory):
                os.chdir(request.working_directory)  # credential plugins run where the caller's kubectl would run them
            self.api = api = await self._make_api(found, environment, files)
            self.settings = settings
            try:
                await self._bring_up(api, settings, progress)
            except BaseException:
                await self.close()
                raise
            return self.result()

    async def _make_api(self, found: Credentials, environment: Mapping[str, str], files: Sequence[Path]) -> Api:
        from tunnel.kube.api import logged_in

        try:
            return await logged_in(found, environment, files, resolve=self._hosts.resolve)
        except KubeError as error:
            raise from_kube(error, "reading the kubeconfig") from error

    async def _bring_up(self, api: Api, settings: Settings, progress: Progress) -> None:
        hosts = [host for host in (urlsplit(api.server).hostname, urlsplit(api.proxy or "").hostname) if host]
        loop = asyncio.get_running_loop()
        bypass = self._tasks.spawn(carrier_addresses(hosts, loop.getaddrinfo), name="bypass")
        opened = await open_session(api, settings, self._start.machine_id, progress)
        keeper = Keeper(
            make=partial(self._make_session, api, settings),
            end=self._end_session,
            tell=self._no_session,
            random=random.random,
            clock=loop.time,
        )
        self._keeper = self._tasks.spawn(keeper.run(self._use(api, opened)), name="keep-session")
        self._tasks.spawn(opened.session.end_earlier(), name="earlier-sessions")
        self._remember(await bypass)
        try:
            async with asyncio.timeout(_HELLO_LIMIT):
                await self._first_cluster
                await self._linked.wait()
        except TimeoutError as error:
            namespace, why = opened.session.namespace, self._why()
            raise SessionError(
                f"the traffic-manager in namespace {namespace} does not answer through the port-forward"
                f"{f' ({why})' if why else ''}; look at its log:"
                f" kubectl -n {namespace} logs deploy/{paths.MANAGER_NAME}",
                daemon_pb2.CLUSTER,
                retryable=True,
            ) from error
        progress.say("network", "setting routes and name resolution")
        self._driver.start()
        await self._configure_host()
        self._since = time.time()
        self._set_state("connected")
        progress.done("network", "routes and name resolution are set")
        self._tasks.spawn(self._follow_cluster(), name="follow-cluster")

    def _use(self, api: Api, opened: Opened) -> LiveSession:
        from tpd.session.engagements.engagements import Engagements
        from tpd.session.live import LiveSession

        self.user = opened.user
        self.live = LiveSession(
            api,
            opened.session,
            opened.pod,
            opened.carrier,
            on_cluster=self._on_cluster,
            on_state=self._on_link_state,
            shared=self._shared,
        )
        if self.engagements is None:
            self.engagements = Engagements(api, opened.user, self._shared)
        self.engagements.use(opened.session)
        return self.live

    async def _make_session(self, api: Api, settings: Settings) -> LiveSession:
        return self._use(api, await open_session(api, settings, self._start.machine_id, Progress(lambda _: None)))

    async def _end_session(self, live: LiveSession) -> None:
        self.live = None
        self._linked.clear()
        if self.engagements is not None:
            await self.engagements.pause()
        await discard(live.session, None)

    def _no_session(self, trouble: Trouble) -> None:
        """Within connect's own limit another session is tried, as when the manager is just being replaced."""
        if self._state != "connecting":
            self._set_state("failed" if trouble.hopeless else "reconnecting", trouble.text)
            return
        self._reason = trouble.text
        if trouble.hopeless and not self._first_cluster.done():
            self._first_cluster.set_exception(SessionError(trouble.text, daemon_pb2.CLUSTER))

    # what the cluster and the link say

    def _on_cluster(self, cluster: manager_pb2.Cluster) -> None:
        self._cluster = cluster
        log.debug("the cluster: %d namespaces, %s", len(cluster.namespaces), ", ".join(subnets_of(cluster)))
        if not self._first_cluster.done():
            self._first_cluster.set_result(None)
        self._host_changed.set()

    def _on_link_state(self, state: LinkState) -> None:
        connected = state.value == "connected"
        if connected:
            self._linked.set()
        else:
            self._linked.clear()
        if self._state == "connecting":
            return
        if connected:
            if self._state == "reconnecting" and self.api is not None:
                self.api.start_afresh()  # the line was away: what waits on the old one would wait for long
            self._set_state("connected")
        else:
            self._set_state("reconnecting", _NO_LINE)

    def _why(self) -> str:
        """The reason of the state, with the newest that is known about the line."""
        trouble = self.live.manager.trouble if self.live is not None else ""
        if not trouble or self._state == "connected" or self._device_is_lost:
            return self._reason
        return f"{_NO_LINE}: {trouble}" if self._reason == _NO_LINE else trouble

    def _set_state(self, state: str, reason: str = "") -> None:
        if self._device_is_lost:
            return  # whatever becomes of the link, no packet comes through any more
        if (state, reason) != (self._state, self._reason):
            log.info("%s", f"{state}: {reason}" if reason else state)
        self._state, self._reason = state, reason

    # the host

    def _names(self, cluster: manager_pb2.Cluster, settings: Settings) -> Names:
        return names_of(
            connected=settings.namespace,
            managed=cluster.namespaces,
            mapped=settings.mapped_namespaces,
            cluster_domain=cluster.cluster_domain or "cluster.local",
            subnets=subnets_of(cluster),
            host_search=self._host_search,
            taken=is_taken,
        )

    async def _configure_host(self) -> None:
        cluster, settings = self._cluster, self.settings
        assert cluster is not None
        assert settings is not None
        self._host_changed.clear()
        names = self._names(cluster, settings)
        config = host_config(subnets_of(cluster), self._bypass, names)
        self._dns.names = names
        if config == self._applied:
            return
        try:
            reply = await self._control.configure_host(daemon_pb2.HostConfig.FromString(config.SerializeToString()))
        except HostRefused as error:
            raise SessionError(str(error), daemon_pb2.CONFIG) from error
        self._applied = config
        for text in reply.refused:
            log.warning("not taken over: %s", text)

    def _is_clusters(self, host: str) -> bool:
        names = self._dns.names
        return names is not None and route(host.lower().rstrip(".").split("."), names) is not Route.UPSTREAM

    def _remember(self, addresses: Sequence[str]) -> bool:
        """Take over addresses that carriers run to; whether any of them is new."""
        new = [address for address in addresses if address not in self._bypass]
        self._bypass = [*self._bypass, *new][-_MOST_BYPASSED:]
        return bool(new)

    async def _bypass_too(self, addresses: Sequence[str]) -> None:
        """A carrier is about to be dialled: its way must not lead into the device, whatever the cluster announces."""
        if self._remember(addresses) and self._applied is not None:
            try:
                await self._configure_host()
            except SessionError as error:
                log.error("cannot change the host for a new address of the API server: %s", error)
                self._host_changed.set()

    async def _follow_cluster(self) -> None:
        while True:
            await self._host_changed.wait()
            try:
                await self._configure_host()
            except SessionError as error:
                log.error("cannot change the host: %s", error)
                await asyncio.sleep(_HOST_PAUSE)
                self._host_changed.set()

    def set_upstreams(self, upstreams: daemon_pb2.Upstreams) -> None:
        """The laptop's own resolvers have changed."""
        self.upstream.set(upstreams.addresses)
        self._host_search = list(upstreams.search)
        self._host_changed.set()

    def _device_lost(self, error: OSError) -> None:
        log.error("the TUN device is gone: %s", error)
        self._set_state("failed", "the TUN device is gone; run: tpctl quit, then connect again")
        self._device_is_lost = True

    # the end

    async def close(self) -> list[str]:
        """Release engagements and session, as far as that is possible in a few seconds; then everything stops.

        Returns what could not be released. Whoever calls it again, or meanwhile, waits for the same end.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="close")
        return await asyncio.shield(self._closing)

    async def _close(self) -> list[str]:
        self._driver.stop()
        left: list[str] = []
        live, self.live = self.live, None
        if self._keeper is not None:
            self._keeper.cancel()  # or it would make a new session for the one that is deleted now
        held = self.engagements.statuses() if self.engagements is not None else []
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                if self.engagements is not None:
                    left += await self.engagements.release_all()
                if live is not None:
                    await live.session.delete()
        except KubeError as error:
            left.append(f"the session: {error}")
        except TimeoutError:
            left = [f"{one.workload}, container {one.container}" for one in held] + ["the session"]
            left = [f"{what}: the API server did not answer in time" for what in left]
        await self._tasks.stop()
        if self.api is not None:
            await self.api.close()
        for text in left:
            log.warning("not released (its lease ends it): %s", text)
        return left

    # answers from memory

    def result(self) -> daemon_pb2.ConnectResult:
        """What `tpctl connect` shows."""
        settings, cluster = self.settings, self._cluster
        if settings is None:
            return daemon_pb2.ConnectResult(device=self._start.device)
        return daemon_pb2.ConnectResult(
            name=settings.name,
            context=settings.context,
            namespace=settings.namespace,
            server=settings.server,
            manager_namespace=self.live.session.namespace if self.live else settings.manager_namespace,
            manager_version=cluster.version if cluster else "",
            user=self.user,
            device=self._start.device,
            subnets=self._applied.subnets if self._applied else [],
            dns_address=self._start.dns_address,
        )

    def status(self) -> daemon_pb2.ConnectionStatus:
        """What `tpctl status` shows."""
        link = self.link
        return daemon_pb2.ConnectionStatus(
            connection=self.result(),
            state=self._state,
            reason=self._why(),
            dns_domains=self._applied.domains if self._applied else [],
            engagements=self.engagements.statuses() if self.engagements else [],
            flows=len(link.flows) if link is not None else 0,
            connected_since=self._since,
            bytes_sent=self._shared.sent,
            bytes_received=self._shared.received,
        )

    def namespaces(self) -> list[str]:
        """The namespaces that the manager manages."""
        return sorted(self._cluster.namespaces) if self._cluster else []
