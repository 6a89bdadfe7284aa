"""What laptops are told about the cluster: its networks and namespaces."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

from manager.config import SERVICE, Config
from manager.kube import paths
from manager.registry import Wakeup
from manager.state import subnets
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.informer import Informer
from tunnel.proto import manager_pb2
from tunnel.version import VERSION

log = logging.getLogger(__name__)

_SETTLE = 0.25
"""Seconds in which many changes become one message."""

_RETRY = 1.0


class ClusterView:
    """The current `Cluster` message, and who waits for the next."""

    def __init__(self, api: Api, config: Config, pods: Informer, domain: str) -> None:
        self._api = api
        self._config = config
        self._domain = domain
        self._wakeup = Wakeup()
        self._pods = pods
        self._namespaces = Informer(api, paths.NAMESPACES, self._wakeup.set)
        self._nodes = Informer(api, paths.NODES, self._wakeup.set)
        self._service_cidrs = Informer(api, paths.SERVICE_CIDRS, self._wakeup.set)
        self.informers = (self._namespaces, self._nodes, self._service_cidrs)
        self.own_service: subnets.Address | None = None
        self.current = manager_pb2.Cluster()
        self.known = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        await self._find_own_service()
        for informer in (*self.informers, self._pods):
            if informer is not self._service_cidrs:  # there is none before Kubernetes 1.33
                await informer.synced.wait()
        try:
            async with asyncio.timeout(1.0):
                await self._service_cidrs.synced.wait()
        except TimeoutError:
            log.info("no ServiceCIDR objects: taking the networks around our own Service")
        while True:
            fresh = self._describe()
            if fresh != self.current:
                self.current = fresh
                self.known.set()
                self._changed.set()
                self._changed = asyncio.Event()
            # Pods come and go without a wake-up; their networks seldom change.
            await self._wakeup.wait(5.0)
            await asyncio.sleep(_SETTLE)

    async def changed(self) -> None:
        """Wait for the next message."""
        await self._changed.wait()

    def _describe(self) -> manager_pb2.Cluster:
        pods = self._config.pod_networks or subnets.pod_networks(self._nodes.items.values(), self._pods.items.values())
        services = subnets.service_networks(self._service_cidrs.items.values(), self.own_service)
        return manager_pb2.Cluster(
            version=VERSION,
            cluster_domain=self._domain,
            service_subnets=[str(network) for network in services],
            pod_subnets=[str(network) for network in pods],
            namespaces=sorted(name for _, name in self._namespaces.items),
            manager_pod=self._config.pod_name,
        )

    async def _find_own_service(self) -> None:
        """Until the API server tells: no session may dial our own address, so none is served without it."""
        while True:
            try:
                service = await self._api.get(paths.services(self._config.namespace, SERVICE))
                self.own_service = ipaddress.ip_address(service["spec"]["clusterIP"])
            except (KeyError, ValueError) as error:
                log.info("own Service has no address: %s", error)
            except KubeError as error:
                if not (isinstance(error, ApiError) and error.not_found):
                    log.warning("cannot read our own Service: %s", error)
                    await asyncio.sleep(_RETRY)
                    continue
                log.info("there is no Service %s", SERVICE)
            return
