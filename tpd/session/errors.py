"""Pure. What goes wrong, as one sentence that says what to do."""

from __future__ import annotations

import re

from tunnel.kube.errors import ApiError, KubeconfigError, KubeError, Unreachable
from tunnel.proto import daemon_pb2


class SessionError(Exception):
    """A request cannot be fulfilled; the text is for the user."""

    def __init__(
        self, text: str, category: daemon_pb2.Category.ValueType = daemon_pb2.USER, *, retryable: bool = False
    ) -> None:
        super().__init__(text)
        self.text = text
        self.category = category
        self.retryable = retryable

    def event(self) -> daemon_pb2.Event:
        """As the final event of a request."""
        return daemon_pb2.Event(
            error=daemon_pb2.Error(text=self.text, category=self.category, retryable=self.retryable)
        )


_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
"""The API server's own text (k8s.io/apiserver authorization); the parts are not in Status.details."""


def forbidden(error: ApiError, doing: str) -> SessionError:
    """A 403: which right is missing, from the server's text; other refusals (admission) speak for themselves."""
    found = _RBAC.search(error.message)
    if found is None:
        return SessionError(f"the cluster refused {doing}: {_plain(error.message)}", daemon_pb2.CLUSTER)
    if found["user"] == "system:anonymous":
        return _log_in()
    resource = found["resource"] + (f".{found['group']}" if found["group"] else "")
    return missing_right(found["verb"], resource, found["namespace"] or "", doing, found["user"])


def missing_right(verb: str, resource: str, namespace: str, doing: str, user: str = "") -> SessionError:
    """Somebody may not do something: say what to ask for."""
    where = f"in namespace {namespace}" if namespace else "in the whole cluster"
    who = f"user {user}" if user else "you"
    return SessionError(
        f"{doing} is not permitted: {who} may not {verb} {resource} {where};"
        " ask the cluster's administrator for that right",
        daemon_pb2.CLUSTER,
    )


def from_kube(error: KubeError, doing: str) -> SessionError:
    """Any failure of a request, with what it was for (`creating the session`)."""
    match error:
        case KubeconfigError():
            return SessionError(str(error), daemon_pb2.CONFIG)
        case Unreachable():
            return SessionError(
                f"{error}; check the network and the kubeconfig's server", daemon_pb2.CLUSTER, retryable=True
            )
        case ApiError(status=401):
            return _log_in()
        case ApiError() if error.forbidden:
            return forbidden(error, doing)
        case _:
            return SessionError(f"{doing} failed: {_plain(str(error))}", daemon_pb2.CLUSTER, retryable=error.retryable)


def _log_in() -> SessionError:
    return SessionError(
        "the API server does not accept your credentials; log in again (try: kubectl auth whoami)", daemon_pb2.CONFIG
    )


def _plain(message: str) -> str:
    return " ".join(message.split()) or "the API server gave no reason"


def no_manager() -> SessionError:
    """Nothing is installed, as far as can be seen."""
    return SessionError(
        "no traffic-manager is installed in this cluster; install it with: tpctl helm install", daemon_pb2.CLUSTER
    )


def no_manager_in(namespace: str, elsewhere: list[str]) -> SessionError:
    """The namespace that was named has none."""
    if elsewhere:
        return SessionError(
            f"no traffic-manager in namespace {namespace}, but there is one in {', '.join(elsewhere)};"
            f" use --manager-namespace {elsewhere[0]}"
        )
    return SessionError(
        f"no traffic-manager in namespace {namespace}; install it there with:"
        f" tpctl helm install --namespace {namespace}"
    )


def several_managers(namespaces: list[str]) -> SessionError:
    """More than one could be meant."""
    return SessionError(f"there are traffic-managers in {', '.join(namespaces)}; choose one with --manager-namespace")


def manager_not_visible() -> SessionError:
    """Not in the usual place, and the user may not look everywhere."""
    return SessionError(
        "cannot find the traffic-manager: you may not list services in all namespaces;"
        " say where it is with --manager-namespace, or ask the cluster's administrator"
    )


def manager_not_ready(namespace: str, why: str) -> SessionError:
    """Installed, but no pod of it serves."""
    return SessionError(
        f"the traffic-manager in namespace {namespace} is not ready: {why}", daemon_pb2.CLUSTER, retryable=True
    )
