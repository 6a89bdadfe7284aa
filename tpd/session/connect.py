"""The connect sequence. Every sequential round trip to the API server costs; they are numbered here.

1. TCP and 2. TLS on three connections at once; 3. who am I, where is the manager, does the namespace exist; 4. create
the Session, watch it, open the port-forward; then inside the port-forward 5. TLS, 6. HTTP/2, 7. hello and cluster.
Modules that are slow to import are imported in a thread meanwhile.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import platform
from collections.abc import Callable
from typing import Any

from tpd.session import errors
from tpd.session.carriers.port_forward import CarrierFailed, PortForward
from tpd.session.carriers.port_forward import discard as discard_carrier
from tpd.session.control import Progress
from tpd.session.errors import SessionError
from tpd.session.identity import new_identity
from tpd.session.kube import manager, paths
from tpd.session.kube.session_object import SessionObject, SessionSpec, SessionVanished
from tpd.session.settings import Settings
from tpd.session.together import together
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.proto import daemon_pb2
from tunnel.version import VERSION

log = logging.getLogger(__name__)


class Opened:
    """A session that has its certificate, and a port-forward to its manager."""

    def __init__(self, session: SessionObject, user: str, pod: str, carrier: asyncio.Task[PortForward]) -> None:
        self.session = session
        self.user = user
        self.pod = pod
        self.carrier = carrier


async def open_session(api: Api, settings: Settings, machine_id: str, progress: Progress) -> Opened:
    """Steps 1 to 4. Raises `SessionError`; then nothing of ours is left in the cluster."""
    progress.say("manager", f"looking for the traffic-manager at {api.server}")
    user, (namespace, pod), _, identity = await together(
        _who_am_i(api),
        manager.find(api, settings.manager_namespace),
        check_namespace(api, settings.namespace),
        asyncio.to_thread(_prepare),
    )
    pod_name = str(pod["metadata"]["name"])
    log.debug("the manager is pod %s; we are %s", pod_name, user)
    progress.say("manager", f"opening a session with the traffic-manager in namespace {namespace}")
    spec = SessionSpec(
        user=user,
        host=platform.node(),
        machine_id=machine_id,
        version=VERSION,
        namespace=settings.namespace,
        name=settings.name,
    )
    session = SessionObject(api, namespace, spec, identity)
    carrier = asyncio.get_running_loop().create_task(
        PortForward.open(api, namespace, pod_name, paths.SESSIONS_PORT), name="first-carrier"
    )
    try:
        await together(session.create(), _opened(carrier, namespace))
    except SessionVanished as error:
        await discard(session, carrier)
        raise SessionError(
            f"the session ended while it was being made: {error}; try again", daemon_pb2.CLUSTER, retryable=True
        ) from error
    except BaseException:
        await discard(session, carrier)
        raise
    log.debug("session %s has its certificate, and the port-forward is open", session.identity.uid)
    return Opened(session, user, pod_name, carrier)


async def discard(session: SessionObject, carrier: asyncio.Task[PortForward] | None) -> None:
    """Take back what was begun, as far as that is possible within two seconds."""

    async def take_back() -> None:
        try:
            async with asyncio.timeout(2):
                await session.delete()
        except (KubeError, TimeoutError):
            pass  # its lease ends it

    if carrier is not None:
        discard_carrier(carrier)
    await asyncio.shield(take_back())


def _prepare() -> Any:
    identity = new_identity()
    for module in ("grpc", "grpc.aio"):
        importlib.import_module(module)
    return identity


async def _who_am_i(api: Api) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        review = await api.create(paths.REVIEW, body)
    except KubeError as error:
        raise errors.from_kube(error, "asking the API server who you are") from error
    return str(review["status"]["userInfo"]["username"])


async def check_namespace(api: Api, namespace: str) -> None:
    """Raises `SessionError` when it is known not to exist."""
    try:
        await api.get(f"{paths.NAMESPACES}/{namespace}")
    except ApiError as error:
        if error.not_found:
            raise SessionError(f"namespace {namespace} does not exist; choose another with --namespace") from error
        # whoever may not read namespaces is believed
    except KubeError as error:
        raise errors.from_kube(error, f"looking for namespace {namespace}") from error


async def _opened(carrier: asyncio.Task[PortForward], namespace: str) -> None:
    doing = f"forwarding a port to the traffic-manager in namespace {namespace}"
    try:
        await asyncio.shield(carrier)
    except ApiError as error:
        if error.forbidden:
            raise errors.missing_right("get", "pods/portforward", namespace, doing) from error
        raise errors.from_kube(error, doing) from error
    except KubeError as error:
        raise errors.from_kube(error, doing) from error
    except CarrierFailed as error:
        raise SessionError(f"{doing} failed: {error}", daemon_pb2.CLUSTER, retryable=True) from error


async def carrier_addresses(hosts: list[str], resolve: Callable[..., Any]) -> list[str]:
    """Addresses of the hosts that carriers run to (API server, proxy), for the bypass routes."""
    found: set[str] = set()
    for host in hosts:
        try:
            answers = await resolve(host, None)
        except OSError:
            continue  # the request itself will say so
        found.update(str(answer[4][0]).partition("%")[0] for answer in answers)
    return sorted(found)
