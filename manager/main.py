"""The traffic-manager's process: everything is made, joined and ended here."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import logging
import os
import sys

import grpc.aio
import uvloop
from aiohttp import web

from manager import pki
from manager.config import (
    AGENTS_PORT,
    HEALTH_PORT,
    SERVICE,
    SESSIONS_PORT,
    WEBHOOK_PORT,
    Config,
    ConfigError,
    from_environment,
)
from manager.kube import paths, root
from manager.kube.cluster import ClusterView
from manager.kube.engagements import EngagementController
from manager.kube.owners import Owners
from manager.kube.probe import PolicyProbe
from manager.kube.sessions import SessionController
from manager.registry import Agents, LiveSessions, Wishes
from manager.serve import health, http, resolver
from manager.serve.agents import REGISTRY_OPTIONS, AgentRegistry
from manager.serve.credentials import Serving
from manager.serve.dns import ClusterDns
from manager.serve.sessions import SessionsServer
from manager.state.dialpolicy import DialPolicy
from manager.state.model import pod_of
from manager.state.names import domain_of
from manager.webhook.server import Injector, reload_pair, tls_context
from manager.wish import WishMaker
from tunnel import logs
from tunnel.aio.grpc_stream import SERVER_OPTIONS
from tunnel.aio.signals import stop_on_signals
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api, in_cluster
from tunnel.kube.errors import KubeError
from tunnel.kube.informer import Informer
from tunnel.version import VERSION

log = logging.getLogger(__name__)

_LISTEN = "[::]"
_RENEW_EVERY = 3600.0
_READY_WITHIN = 15.0
"""Seconds after which pods are evicted even if our own never becomes ready."""
_SERVICE_SETTLES = 1.0
"""Seconds in which the Service's proxies learn of a ready pod."""
_STOP_GRACE = 0.5
"""Seconds for streams to end by themselves: laptops dial the next manager, so the sooner the better."""


async def load_root(api: Api, config: Config) -> pki.Pair:
    """The root; waits for an API server that is not there yet."""
    pause = 0.1
    while True:
        try:
            return await root.load_or_make(api, config, dt.datetime.now(dt.UTC))
        except KubeError as error:
            log.warning("cannot read the root certificate: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)


class Manager:
    """Everything that runs, and in which order it begins and ends."""

    def __init__(self, api: Api, config: Config, authority: pki.Authority, conf: resolver.ResolvConf) -> None:
        self.config = config
        self.api = api
        self.authority = authority
        self.live = LiveSessions()
        self.agents = Agents()
        self.wishes = Wishes()
        self.owners = Owners(api)
        wish_for = WishMaker(config, authority.root_pem)
        self.pods = Informer(api, paths.PODS, lambda key, item: self.engagements.pod_changed(key, item))
        domain = domain_of(conf.search)
        self.cluster = ClusterView(api, config, self.pods, domain)
        self.probe = PolicyProbe(api, config, self._policy_changed)
        self.sessions = SessionController(api, config, authority, self.probe, self.live, self._sessions_changed)
        self.engagements = EngagementController(
            api,
            config,
            pods=self.pods,
            owners=self.owners,
            probe=self.probe,
            live=self.live,
            agents=self.agents,
            wishes=self.wishes,
            wish_for=wish_for,
            can_inject=lambda: self.reachable.is_set(),
        )
        self.injector = Injector(self.owners, self.wishes, wish_for)
        self.resolver = resolver.Resolver(conf.servers)
        self.dns = ClusterDns(self.resolver, domain)
        self.serving = Serving(
            authority,
            Identity(Kind.MANAGER, config.namespace),
            (f"{SERVICE}.{config.namespace}.svc", f"{SERVICE}.{config.namespace}.svc.{domain}", SERVICE),
        )
        self.announced = asyncio.Event()
        self.listening = asyncio.Event()
        self.reachable = asyncio.Event()
        """The webhook is behind its Service, as far as can be known."""

    def _policy_changed(self) -> None:
        self.sessions.wakeup.set()
        self.engagements.wakeup.set()

    def _sessions_changed(self) -> None:
        self.engagements.wakeup.set()

    def waiting_for(self) -> list[str]:
        """What is missing until laptops can be served."""
        needed = {
            "sessions": self.sessions.informer.synced,
            "engagements": self.engagements.informer.synced,
            "pods": self.pods.synced,
            "the admission policies to work": self.probe.works,
            "the ports": self.listening,
            "the webhook's CA bundle": self.announced,
        }
        return [name for name, event in needed.items() if not event.is_set()]

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`."""
        runner = http.runner(health.application(self.waiting_for), "health")
        await runner.setup()
        await web.TCPSite(runner, None, HEALTH_PORT).start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(job, name=name)
                    for name, job in {
                        "sessions informer": self.sessions.informer.run(),
                        "engagements informer": self.engagements.informer.run(),
                        "pods informer": self.pods.run(),
                        **{f"informer {n}": each.run() for n, each in enumerate(self.cluster.informers)},
                        "cluster": self.cluster.run(),
                        "policy probe": self.probe.run(),
                        "sessions": self.sessions.run(),
                        "engagements": self.engagements.run(self.sessions.published),
                        "announce": self._announce(),
                        "reach": self._reach(),
                        "serve": self._serve(),
                    }.items()
                ]
                await stop.wait()
                log.info("stopping")
                for task in tasks:
                    task.cancel()
        finally:
            await runner.cleanup()
            self.resolver.close()

    async def _serve(self) -> None:
        """The three TLS ports, from when the first answer would be right."""
        policy = DialPolicy(self.config.pod_addresses, self.config.deny)
        sessions = SessionsServer(self.live, self.cluster, policy, self.dns)
        for event in (self.sessions.published, self.engagements.informer.synced, self.cluster.known):
            await event.wait()
        if self.cluster.own_service is not None:
            policy.add_own(self.cluster.own_service)
        sessions_port = grpc.aio.server(options=SERVER_OPTIONS)
        agents_port = grpc.aio.server(options=REGISTRY_OPTIONS)
        sessions_port.add_generic_rpc_handlers(sessions.handlers())
        agents_port.add_generic_rpc_handlers((AgentRegistry(self.api, self.authority, self.agents).handler(),))
        sessions_port.add_secure_port(
            f"{_LISTEN}:{SESSIONS_PORT}", self.serving.server_credentials(require_client=True)
        )
        agents_port.add_secure_port(f"{_LISTEN}:{AGENTS_PORT}", self.serving.server_credentials(require_client=False))
        tls = tls_context(self.serving.pair())
        webhook = http.runner(self.injector.application(), "webhook")
        await webhook.setup()
        try:
            await web.TCPSite(webhook, None, WEBHOOK_PORT, ssl_context=tls).start()
            await sessions_port.start()
            await agents_port.start()
            self.listening.set()
            log.info(
                "serving sessions on %d, agents on %d, the webhook on %d", SESSIONS_PORT, AGENTS_PORT, WEBHOOK_PORT
            )
            while True:
                await asyncio.sleep(_RENEW_EVERY)
                reload_pair(tls, self.serving.pair())
        finally:
            self.listening.clear()
            await sessions.close()
            await asyncio.gather(sessions_port.stop(_STOP_GRACE), agents_port.stop(_STOP_GRACE), webhook.cleanup())

    async def _reach(self) -> None:
        """Wait until our pod is ready, and its Service leads to it."""
        await self.listening.wait()
        await self.announced.wait()
        deadline = asyncio.get_running_loop().time() + _READY_WITHIN
        while asyncio.get_running_loop().time() < deadline:
            own = self.pods.items.get((self.config.namespace, self.config.pod_name))
            if own is not None and pod_of(own).ready:
                await asyncio.sleep(_SERVICE_SETTLES)
                break
            await asyncio.sleep(0.1)
        self.reachable.set()
        self.engagements.wakeup.set()

    async def _announce(self) -> None:
        """Keep our root in the webhook's configuration, also after somebody applied the chart anew."""
        while True:
            done = await root.announce(self.api, self.config, self.authority.root_pem)
            if done:
                self.announced.set()
            await asyncio.sleep(60.0 if done else 1.0)


async def amain(config: Config) -> None:
    """Run until a signal."""
    with stop_on_signals() as stop:
        async with in_cluster() as api:
            pair = await load_root(api, config)
            authority = pki.Authority(pair, dt.datetime.now(dt.UTC))
            conf = resolver.parse(resolver.RESOLV_CONF.read_text(encoding="utf-8"))
            manager = Manager(api, config, authority, conf)
            gc.freeze()  # modules and settings live as long as the process
            await manager.run(stop)


def main() -> None:
    """The entry point `tp-manager`."""
    try:
        config = from_environment(os.environ)
    except ConfigError as error:
        sys.exit(f"tp-manager: {error}")
    logs.begin(config.log_level)
    log.info("traffic-manager %s in namespace %s", VERSION, config.namespace)
    try:
        uvloop.run(amain(config))
    except root.NoRoot as error:
        sys.exit(f"tp-manager: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
