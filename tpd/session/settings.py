"""Pure. What a connection was asked to be, resolved; and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tunnel.kube.kubeconfig import Credentials, paths_from
from tunnel.proto import daemon_pb2


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a connection; the order of fields is the order in which differences are named."""

    context: str
    server: str
    user: str
    """The kubeconfig's name for who we are there."""
    namespace: str
    manager_namespace: str
    """Empty: wherever it is found."""
    mapped_namespaces: tuple[str, ...]
    name: str


def environment_of(request: daemon_pb2.Connect, own: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment: that of this request alone, over what `own` (the worker's, that of the connection's
    first caller) says of the account."""
    if not request.environment:
        return dict(own)
    return {name: own[name] for name in _ACCOUNT if name in own} | dict(request.environment)


_ACCOUNT = ("HOME", "USER", "LOGNAME")


def kubeconfigs(request: daemon_pb2.Connect, environment: Mapping[str, str]) -> list[str]:
    """The files that the caller means: relative paths are relative to where the caller is."""
    return [str(Path(request.working_directory, path)) for path in paths_from(environment, request.kubeconfig)]


def resolve(request: daemon_pb2.Connect, found: Credentials) -> Settings:
    """Fill in the defaults from what the kubeconfig says."""
    context, namespace = found.context, request.namespace or found.namespace
    return Settings(
        context=context,
        server=found.server,
        user=found.user,
        namespace=namespace,
        manager_namespace=request.manager_namespace,
        mapped_namespaces=tuple(sorted(set(request.mapped_namespaces))),
        name=request.name or _UNUSUAL.sub("-", f"{context}-{namespace}")[:253],
    )


_UNUSUAL = re.compile(r"[^A-Za-z0-9._@:/-]")
"""What a context may have in its name and a connection may not: tpd refuses it."""

_WORDS = {
    "context": "context",
    "server": "API server",
    "user": "kubeconfig user",
    "namespace": "namespace",
    "manager_namespace": "manager namespace",
    "mapped_namespaces": "mapped namespaces",
    "name": "name",
}


def difference(current: Settings, wanted: Settings) -> str:
    """One sentence about the first setting that differs, or an empty text."""
    for field in fields(Settings):
        have, want = getattr(current, field.name), getattr(wanted, field.name)
        if have != want:
            return (
                f"connection {current.name} has {_WORDS[field.name]} {_text(have)}, not {_text(want)};"
                " run: tpctl quit, then connect again"
            )
    return ""


def _text(value: Any) -> str:
    return (", ".join(value) if isinstance(value, tuple) else str(value)) or "the default"
