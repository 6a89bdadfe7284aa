"""Pure. What a connection was asked to be, resolved; and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tunnel.proto import daemon_pb2


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a connection; the order of fields is the order in which differences are named."""

    context: str
    server: str
    namespace: str
    manager_namespace: str
    """Empty: wherever it is found."""
    mapped_namespaces: tuple[str, ...]
    name: str


def resolve(request: daemon_pb2.Connect, *, context: str, server: str, default_namespace: str) -> Settings:
    """Fill in the defaults; context, server and default_namespace come from the kubeconfig."""
    namespace = request.namespace or default_namespace
    return Settings(
        context=context,
        server=server,
        namespace=namespace,
        manager_namespace=request.manager_namespace,
        mapped_namespaces=tuple(sorted(set(request.mapped_namespaces))),
        name=request.name or f"{context}-{namespace}",
    )


_WORDS = {
    "context": "context",
    "server": "API server",
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
