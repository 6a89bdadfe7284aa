"""Reading kubeconfig files: where the API server is and who we are.

Merging follows kubectl: of several files the first one that defines a name wins, and the first non-empty
`current-context`. What the user's entry holds (certificates, tokens, basic) is read here; what has to be asked for (a
token file, a credential plugin, a legacy `auth-provider`) is left to `login.py`.
Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.exec_plugin import ExecPlugin, cluster_info, plugin_of
from tunnel.kube.fields import Entry, mapping, text, texts

_TOKEN_CHARACTERS = "!#$&'*+-.^_`|~"
"""What a header's name may have besides letters and digits (RFC 9110, 5.6.2), but for the % that escapes the rest."""


@dataclass(frozen=True)
class Credentials:
    """How to reach one API server, and as whom. PEM bytes, not file names."""

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
    exec_plugin: ExecPlugin | None = None
    auth_provider: dict[str, Any] | None = None
    impersonation: tuple[tuple[str, str], ...] = ()
    """Headers that ask the server to take us for somebody else."""
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
    details = mapping(found[1], "context")
    cluster = _named(documents, "clusters", str(details.get("cluster", "")))
    if cluster is None:
        raise KubeconfigError(f"context {wanted!r} names the cluster {details.get('cluster')!r}, which is not there")
    user = _named(documents, "users", str(details.get("user", "")))
    if user is None and details.get("user"):
        raise KubeconfigError(f"context {wanted!r} names the user {details['user']!r}, who is not there")
    return _credentials(wanted, details, cluster, user)


def _credentials(
    context: str,
    details: Entry,
    cluster: tuple[Path, dict[str, Any]],
    user: tuple[Path, dict[str, Any]] | None,
) -> Credentials:
    where, entry = cluster[0].parent, mapping(cluster[1], "cluster")
    server = (text(entry, "server") or "").rstrip("/")
    if not server:
        raise KubeconfigError(f"the cluster of context {context!r} has no server address")
    if not _is_url(server):
        raise KubeconfigError(f"the server {server!r} of context {context!r} is not a URL, as in https://HOST:6443")
    home, who = (user[0].parent, mapping(user[1], "user")) if user else (where, {})
    token, token_file, name = text(who, "token"), text(who, "tokenFile"), text(who, "username")
    ca = _file_or_data(entry, "certificate-authority", where)
    basic = None
    if name and "password" in who:
        basic = base64.b64encode(f"{name}:{who['password']}".encode()).decode()
    plugin = None
    if who.get("exec") and not (token or token_file or basic):
        known = base64.b64encode(ca).decode() if ca else None
        plugin = plugin_of(mapping(who, "exec"), home, cluster_info(entry, known))
    return Credentials(
        context=context,
        namespace=text(details, "namespace") or "default",
        server=server,
        ca=ca,
        insecure=bool(entry.get("insecure-skip-tls-verify")),
        server_name=text(entry, "tls-server-name"),
        proxy=text(entry, "proxy-url"),
        certificate=_file_or_data(who, "client-certificate", home),
        key=_file_or_data(who, "client-key", home),
        token=token,
        token_file=str(home / token_file) if token_file else None,
        basic=basic,
        exec_plugin=plugin,
        auth_provider=dict(mapping(who, "auth-provider")) or None,
        impersonation=_impersonation(who),
        user=str(details.get("user") or ""),
    )


def _is_url(server: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(server)
        return parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return False


def _impersonation(who: Entry) -> tuple[tuple[str, str], ...]:
    """Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation."""
    name, uid, groups, extra = (
        text(who, "as"),
        text(who, "as-uid"),
        texts(who, "as-groups"),
        mapping(who, "as-user-extra"),
    )
    headers = [("Impersonate-Uid", uid)] if uid else []
    headers += [("Impersonate-Group", group) for group in groups]
    for key in extra:
        field = f"Impersonate-Extra-{urllib.parse.quote(key, safe=_TOKEN_CHARACTERS)}"
        headers += [(field, value) for value in texts(extra, key)]
    if headers and not name:
        raise KubeconfigError("the kubeconfig has 'as-uid', 'as-groups' or 'as-user-extra', but nobody in 'as'")
    if not all(value.isprintable() for _, value in headers):
        raise KubeconfigError("whom to impersonate has line breaks or control characters in it in the kubeconfig")
    return (("Impersonate-User", name), *headers) if name else ()


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


def _file_or_data(entry: Entry, key: str, base: Path) -> bytes | None:
    if data := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(data)
        except (ValueError, TypeError) as error:
            raise KubeconfigError(f"{key}-data in the kubeconfig is not base64") from error
    if name := text(entry, key):
        try:
            return (base / name).read_bytes()
        except OSError as error:
            raise KubeconfigError(f"cannot read {base / name}, which the kubeconfig names: {error.strerror}") from error
    return None
