"""Our Session object: creating it, waiting for its certificate, renewing its lease, deleting it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tpd.session import errors
from tpd.session.errors import SessionError
from tpd.session.identity import Identity
from tpd.session.kube import paths
from tpd.session.together import together
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.pace import Pace
from tunnel.proto import daemon_pb2

Object = dict[str, Any]

log = logging.getLogger(__name__)

RENEWED = f"{paths.GROUP}/renewed"
_CERTIFICATE_LIMIT = 15.0
"""Seconds from the object's creation to its certificate; the manager needs milliseconds."""
_RENEWAL_PAUSE = 5.0
"""Seconds until the next attempt when the lease could not be renewed."""
_BEFORE_POLICY = "CreatedBeforePolicy"
"""The manager's reason when the cluster cannot vouch yet for the name in the object. It goes by whole seconds."""
_ATTEMPTS = 3
_ATTEMPT_PAUSE = 1.2


class SessionVanished(Exception):
    """The Session object is gone or ended: a new one is needed."""


class _TooEarly(SessionError):
    """Refused only because it was created before the cluster's admission policies worked; a later one may be taken."""


@dataclass(frozen=True)
class SessionSpec:
    """What the object says about us."""

    user: str
    host: str
    machine_id: str
    version: str
    namespace: str
    name: str

    @property
    def origin(self) -> tuple[str, ...]:
        """What one connection of one user on one machine has for itself: tpd lets nobody have two of a name."""
        return self.user, self.machine_id, self.host, self.name

    def body(self, object_name: str, public_key: str, now: datetime.datetime) -> Object:
        """The object to create."""
        return {
            "apiVersion": paths.API_VERSION,
            "kind": "Session",
            "metadata": {"name": object_name, "annotations": {RENEWED: timestamp(now)}},
            "spec": {
                "user": self.user,
                "client": {"host": self.host, "machineId": self.machine_id, "version": self.version},
                "publicKey": public_key,
                "namespace": self.namespace,
                "name": self.name,
            },
        }


def _origin(spec: Object) -> tuple[str, ...]:
    client = spec.get("client") or {}
    parts = spec.get("user"), client.get("machineId"), client.get("host"), spec.get("name")
    return tuple(str(part or "") for part in parts)


class SessionObject:
    """One Session in the cluster. `identity` changes when the manager signs anew (`on_identity` is called then)."""

    def __init__(self, api: Api, namespace: str, spec: SessionSpec, identity: Identity) -> None:
        self._api = api
        self.namespace = namespace
        self._spec = spec
        self.name = self._new_name()
        self.identity = identity
        self.lease_seconds = 300.0
        self._lease_changed = asyncio.Event()
        self._version = ""
        self.on_identity: Callable[[], None] = lambda: None

    def _new_name(self) -> str:
        return f"{_label(self._spec.host)}-{secrets.token_hex(5)}"

    async def create(self) -> None:
        """Create the object and wait for its certificate. Raises `SessionError`.

        Just after the manager's installation, or a change of the admission policies, it takes another object or two.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                await self._create_one()
            except _TooEarly as error:
                log.info("%s; making another session", error)
                with contextlib.suppress(KubeError):  # then its lease ends it
                    await self.delete()
                await asyncio.sleep(_ATTEMPT_PAUSE)
                self.name = self._new_name()
            else:
                return
        await self._create_one()

    async def _create_one(self) -> None:
        """The watch starts at the same time as the creation: one round trip less."""
        try:
            async with asyncio.timeout(_CERTIFICATE_LIMIT):
                await together(self._create(), self._await_certificate())
        except TimeoutError:
            raise SessionError(
                f"the traffic-manager in namespace {self.namespace} did not answer the session within"
                f" {_CERTIFICATE_LIMIT:.0f} s; look at its log:"
                f" kubectl -n {self.namespace} logs deploy/{paths.MANAGER_NAME}",
                daemon_pb2.CLUSTER,
                retryable=True,
            ) from None
        except KubeError as error:
            raise _create_error(error, self.namespace) from None

    async def end_earlier(self) -> None:
        """Delete what this very connection left behind when it could not say goodbye (a crash, a line that was away):
        nobody has to wait for the lease of a session that is known to be dead. What fails is left to that lease."""
        mine = self._spec.origin
        if not self._spec.machine_id:
            return
        try:
            found = await self._api.list(paths.sessions(self.namespace))
            for item in found.get("items") or []:
                name, uid = item["metadata"]["name"], item["metadata"]["uid"]
                if name != self.name and _origin(item.get("spec") or {}) == mine:
                    log.info("ending the earlier session %s", name)
                    body = {"preconditions": {"uid": uid}}
                    await self._api.delete(paths.sessions(self.namespace, name), body=body)
        except KubeError as error:
            log.info("cannot end earlier sessions: %s", error)

    async def _create(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        await self._api.create(
            paths.sessions(self.namespace), self._spec.body(self.name, self.identity.public_key, now)
        )

    async def _await_certificate(self) -> None:
        pace = Pace()
        while True:
            async for kind, item in self._watch(""):
                if kind == "DELETED":
                    raise SessionError("the session was deleted while it was being made; try again")
                if kind != "BOOKMARK" and self._take(item):
                    return
            await pace.rest()

    def _watch(self, version: str) -> Any:
        return self._api.watch(
            paths.sessions(self.namespace),
            resource_version=version,
            params={"fieldSelector": f"metadata.name={self.name}"},
        )

    def _take(self, item: Object) -> bool:
        """Take over what the status says; True when it holds a certificate that is new to us."""
        metadata, status = item.get("metadata") or {}, item.get("status") or {}
        self._version = str(metadata.get("resourceVersion") or self._version)
        phase = status.get("phase")
        if phase == "Refused":
            kind = _TooEarly if status.get("reason") == _BEFORE_POLICY else SessionError
            raise kind(
                f"the traffic-manager refused the session: {status.get('message') or status.get('reason')}",
                daemon_pb2.CLUSTER,
            )
        if phase == "Expired":
            raise SessionVanished("its lease ended")
        lease = float(status.get("leaseSeconds") or self.lease_seconds)
        if lease != self.lease_seconds:
            self.lease_seconds = lease
            self._lease_changed.set()
        chain, root = status.get("certificate"), status.get("root")
        if not chain or not root or chain.encode() == self.identity.chain:
            return False
        self.identity = self.identity.signed(str(metadata["uid"]), chain, root)
        self.on_identity()
        return True

    async def keep(self) -> None:
        """Renew the lease and follow the object. Raises `SessionVanished` when a new session is needed,
        `SessionError`."""
        await together(self._renew(), self._follow())

    async def _renew(self) -> None:
        pause = 0.0
        self._lease_changed.clear()  # what is known at the start is no change
        while True:
            with contextlib.suppress(TimeoutError):
                # With a shorter lease (a new value of the chart), the third of the old one may be too late.
                await asyncio.wait_for(self._lease_changed.wait(), pause or self.lease_seconds / 3)
            self._lease_changed.clear()
            now = timestamp(datetime.datetime.now(datetime.UTC))
            try:
                await self._api.patch(
                    paths.sessions(self.namespace, self.name), {"metadata": {"annotations": {RENEWED: now}}}
                )
                pause = 0.0
            except ApiError as error:
                if error.not_found:
                    raise SessionVanished("its object was deleted") from error
                pause = _RENEWAL_PAUSE
            except KubeError:
                pause = _RENEWAL_PAUSE

    async def _follow(self) -> None:
        pace = Pace()
        while True:
            try:
                async for kind, item in self._watch(self._version):
                    if kind == "DELETED":
                        raise SessionVanished("its object was deleted")
                    if kind != "BOOKMARK":
                        self._take(item)
            except KubeError:
                self._version = ""
                await self._still_there()
            await pace.rest()

    async def _still_there(self) -> None:
        """After a gap in the watch the object may have gone unseen."""
        try:
            self._take(await self._api.get(paths.sessions(self.namespace, self.name)))
        except ApiError as error:
            if error.not_found:
                raise SessionVanished("its object was deleted") from error
        except KubeError:
            pass  # the API server is away; the watch is tried again

    async def delete(self) -> None:
        """Remove the object, which ends the session and its engagements. Raises `KubeError`."""
        try:
            await self._api.delete(paths.sessions(self.namespace, self.name))
        except ApiError as error:
            if not error.not_found:
                raise


def timestamp(now: datetime.datetime) -> str:
    """RFC 3339 in UTC, as Kubernetes writes it."""
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _label(text: str) -> str:
    """As much of a host's name as fits an object's name (RFC 1123 label)."""
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in text.lower()).strip("-")
    return kept[:40].strip("-") or "laptop"


def _create_error(error: KubeError, namespace: str) -> SessionError:
    if isinstance(error, ApiError) and error.not_found:
        return SessionError(
            "the cluster has no tpctl.io Session resource; install the traffic-manager with: tpctl helm install",
            daemon_pb2.CLUSTER,
        )
    return errors.from_kube(error, f"creating the session in namespace {namespace}")
