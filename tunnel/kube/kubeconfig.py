"""Reading kubeconfig files: where the API server is and who we are.

Merging follows kubectl: of several files the first one that defines a name wins, and the first non-empty
`current-context`. Static credentials (certificates, tokens, basic) are read here; a user with a credential plugin
(`exec`) or a legacy `auth-provider` is left to the kubernetes package, whose import alone costs half a second.
Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel.kube.errors import KubeconfigError


@dataclass(frozen=True)
class Credentials:
    """How to reach one API server. PEM bytes, not file names; `plugin` means: ask the kubernetes package."""

    context: str
    namespace: str
    server: str
    ca: bytes | None = None
    insecure: bool = False
    server_name: str | None = None
    proxy: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    token: str | None = None
    token_file: str | None = None
    basic: str | None = None
    plugin: bool = False
    user: str = ""
    """The kubeconfig's name for who we are; empty in a pod."""


def paths_from(environment: Mapping[str, str], explicit: Sequence[str] = ()) -> list[Path]:
    """The files to read: those named, else $KUBECONFIG, else ~/.kube/config. Missing files are not an error yet."""
    if explicit:
        return [Path(path) for path in explicit]
    listed = [part for part in environment.get("KUBECONFIG", "").split(":") if part]
    if listed:
        return [Path(path) for path in listed]
    return [Path(environment.get("HOME", "/")) / ".kube" / "config"]


def load(paths: Sequence[Path], context: str = "") -> Credentials:
    """Read and merge `paths` and return what `context` (default: the current one) stands for."""
    documents = [(path, _read(path)) for path in paths if path.exists()]
    if not documents:
        named = ", ".join(str(path) for path in paths)
        raise KubeconfigError(f"no kubeconfig at {named}; name one with --kubeconfig or $KUBECONFIG")
    wanted = context or next((str(d["current-context"]) for _, d in documents if d.get("current-context")), "")
    if not wanted:
        raise KubeconfigError("the kubeconfig has no current context; name one with --context")
    found = _named(documents, "contexts", wanted)
    if found is None:
        known = sorted({str(c.get("name")) for _, d in documents for c in d.get("contexts") or []})
        raise KubeconfigError(f"the kubeconfig has no context {wanted!r}; it has {', '.join(known) or 'none'}")
    details = found[1].get("context") or {}
    cluster = _named(documents, "clusters", str(details.get("cluster", "")))
    if cluster is None:
        raise KubeconfigError(f"context {wanted!r} names the cluster {details.get('cluster')!r}, which is not there")
    user = _named(documents, "users", str(details.get("user", "")))
    if user is None and details.get("user"):
        raise KubeconfigError(f"context {wanted!r} names the user {details['user']!r}, who is not there")
    return _credentials(wanted, details, cluster, user)


def _credentials(
    context: str,
    details: dict[str, Any],
    cluster: tuple[Path, dict[str, Any]],
    user: tuple[Path, dict[str, Any]] | None,
) -> Credentials:
    where, entry = cluster[0].parent, cluster[1].get("cluster") or {}
    server = str(entry.get("server") or "").rstrip("/")
    if not server:
        raise KubeconfigError(f"the cluster of context {context!r} has no server address")
    if not server.startswith(("https://", "http://")):
        raise KubeconfigError(f"the server {server!r} of context {context!r} is not a URL, as in https://HOST:6443")
    home, who = (user[0].parent, user[1].get("user") or {}) if user else (where, {})
    token_file = who.get("tokenFile")
    basic = None
    if "username" in who and "password" in who:
        basic = base64.b64encode(f"{who['username']}:{who['password']}".encode()).decode()
    return Credentials(
        context=context,
        namespace=str(details.get("namespace") or "default"),
        server=server,
        ca=_file_or_data(entry, "certificate-authority", where),
        insecure=bool(entry.get("insecure-skip-tls-verify")),
        server_name=entry.get("tls-server-name"),
        proxy=entry.get("proxy-url"),
        certificate=_file_or_data(who, "client-certificate", home),
        key=_file_or_data(who, "client-key", home),
        token=who.get("token"),
        token_file=str(home / token_file) if token_file else None,
        basic=basic,
        plugin="exec" in who or "auth-provider" in who,
        user=str(details.get("user") or ""),
    )


def _read(path: Path) -> dict[str, Any]:
    import yaml  # what runs inside a cluster has no kubeconfig, and no PyYAML

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_bytes(), Loader=loader)  # a safe loader, in C where there is one
    except OSError as error:
        raise KubeconfigError(f"cannot read the kubeconfig {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KubeconfigError(f"the kubeconfig {path} is not valid YAML") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise KubeconfigError(f"the kubeconfig {path} is not a mapping")
    for kind in ("contexts", "clusters", "users"):
        entries = document.get(kind) or []
        if not isinstance(entries, list) or not all(_is_entry(entry, kind[:-1]) for entry in entries):
            raise KubeconfigError(f"{kind!r} in the kubeconfig {path} is not a list of names with their mappings")
    return document


def _is_entry(entry: Any, key: str) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get(key), dict | None)


def _named(
    documents: Sequence[tuple[Path, dict[str, Any]]], kind: str, name: str
) -> tuple[Path, dict[str, Any]] | None:
    for path, document in documents:
        for item in document.get(kind) or []:
            if item.get("name") == name:
                return path, item
    return None


def _file_or_data(entry: dict[str, Any], key: str, base: Path) -> bytes | None:
    data = entry.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(data)
        except ValueError as error:
            raise KubeconfigError(f"{key}-data in the kubeconfig is not base64") from error
    if entry.get(key):
        path = base / str(entry[key])
        try:
            return path.read_bytes()
        except OSError as error:
            raise KubeconfigError(f"cannot read {path}, which the kubeconfig names: {error.strerror}") from error
    return None
