"""Reading a kubeconfig's fields: what is not of its kind is refused by name. Values may be secret: never told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.kube.errors import KubeconfigError

Entry = Mapping[str, Any]


def text(entry: Entry, key: str) -> str | None:
    """A text, in one line and without control characters; None if it is empty or not there."""
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise KubeconfigError(f"{key!r} in the kubeconfig is not a text; put it into quotes")
    value = value.strip()
    if not value.isprintable():
        raise KubeconfigError(f"{key!r} in the kubeconfig has line breaks or control characters in it")
    return value or None


def texts(entry: Entry, key: str) -> tuple[str, ...]:
    """A list of texts, empty if it is not there."""
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise KubeconfigError(f"{key!r} in the kubeconfig is not a list of texts")
    return tuple(value)


def mapping(entry: Entry, key: str) -> Entry:
    """A mapping, empty if it is not there."""
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise KubeconfigError(f"{key!r} in the kubeconfig is not a mapping")
    return value
