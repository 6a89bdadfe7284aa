"""Our Engagement objects: asking for a container, following what becomes of it, giving it back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from tpd.session import errors
from tpd.session.engagements.ports import PortMapping
from tpd.session.errors import SessionError
from tpd.session.kube import paths
from tpd.session.kube.session_object import SessionObject
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.pace import Pace
from tunnel.proto import daemon_pb2

Object = dict[str, Any]


class EngagementObject:
    """One Engagement in the cluster."""

    def __init__(self, api: Api, namespace: str, kind: str, workload: str, container: str) -> None:
        self._api = api
        self.namespace = namespace
        self.kind = kind
        self.workload = workload
        self.container = container
        self.name = f"{workload[:40].rstrip('-.')}-{secrets.token_hex(4)}"
        self.uid = ""
        self._version = ""

    async def create(self, user: str, session: SessionObject, ports: Sequence[PortMapping]) -> None:
        """Ask for the container. Raises `SessionError`."""
        body: Object = {
            "apiVersion": paths.API_VERSION,
            "kind": "Engagement",
            "metadata": {"name": self.name},
            "spec": {
                "user": user,
                "session": {
                    "namespace": session.namespace,
                    "name": session.name,
                    "uid": session.identity.uid,
                },
                "mode": "Replace",
                "workload": {"kind": self.kind, "name": self.workload},
                "container": self.container,
                "ports": [{"containerPort": p.container, "protocol": p.protocol} for p in ports],
            },
        }
        try:
            created = await self._api.create(paths.engagements(self.namespace), body)
        except KubeError as error:
            raise _create_error(error, self) from error
        self.uid = str(created["metadata"]["uid"])
        self._version = str(created["metadata"]["resourceVersion"])

    async def follow(self, on_status: Callable[[Object], None]) -> None:
        """Call `on_status(status)` for each change; returns when the object is gone."""
        pace = Pace()
        while True:
            try:
                async for kind, item in self._api.watch(
                    paths.engagements(self.namespace),
                    resource_version=self._version,
                    params={"fieldSelector": f"metadata.name={self.name}"},
                ):
                    metadata = item.get("metadata") or {}
                    self._version = str(metadata.get("resourceVersion") or self._version)
                    if kind == "BOOKMARK":
                        continue
                    if kind == "DELETED" or metadata.get("uid") != self.uid:
                        return
                    on_status(item.get("status") or {})
            except KubeError:
                self._version = ""
                if not await self._still_there(on_status):
                    return
            await pace.rest()

    async def _still_there(self, on_status: Callable[[Object], None]) -> bool:
        try:
            item = await self._api.get(paths.engagements(self.namespace, self.name))
        except ApiError as error:
            return not error.not_found
        except KubeError:
            return True
        self._version = str(item["metadata"]["resourceVersion"])
        if item["metadata"]["uid"] != self.uid:
            return False
        on_status(item.get("status") or {})
        return True

    async def delete(self) -> None:
        """Give the container back. Raises `KubeError`; an object that is gone already is fine."""
        try:
            await self._api.delete(paths.engagements(self.namespace, self.name))
        except ApiError as error:
            if not error.not_found:
                raise


def _create_error(error: KubeError, wanted: EngagementObject) -> SessionError:
    if isinstance(error, ApiError) and error.not_found:
        return SessionError(
            f"namespace {wanted.namespace} does not exist, or the cluster has no tpctl.io Engagement resource;"
            " check the name, or install the traffic-manager with: tpctl helm install",
            daemon_pb2.CLUSTER,
        )
    return errors.from_kube(error, f"replacing a container in namespace {wanted.namespace}")
