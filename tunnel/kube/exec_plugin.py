"""Credential plugins: programs of the user that say who he is (client.authentication.k8s.io, v1 and v1beta1).

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.fields import Entry, mapping, text, texts
from tunnel.kube.grant import Grant

_GROUP = "client.authentication.k8s.io"
_LONGEST_WORDS = 500


@dataclass(frozen=True)
class ExecPlugin:
    """A user's `exec` entry. `cluster`: what the program is told about the cluster; None: nothing."""

    api_version: str
    command: str
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    install_hint: str = ""
    cluster: Mapping[str, Any] | None = None


def plugin_of(entry: Entry, home: Path, cluster: Mapping[str, Any]) -> ExecPlugin:
    """Read the entry of a kubeconfig that is in the folder `home`. Raises `KubeconfigError`."""
    version, command = text(entry, "apiVersion"), text(entry, "command")
    if command is None:
        raise KubeconfigError("the kubeconfig's credential plugin has no command")
    if version not in (f"{_GROUP}/v1", f"{_GROUP}/v1beta1"):
        raise KubeconfigError(f"the kubeconfig's credential plugin has the apiVersion {version}, not {_GROUP}/v1")
    if text(entry, "interactiveMode") == "Always":
        raise _failed("it wants a terminal (interactiveMode: Always), and there is none here")
    if "/" in command:
        command = str(home / command)
    return ExecPlugin(
        version,
        command,
        texts(entry, "args"),
        _variables(entry.get("env")),
        # It may have several lines.
        " ".join(str(entry.get("installHint") or "").split()),
        cluster if entry.get("provideClusterInfo") else None,
    )


def _variables(entries: Any) -> tuple[tuple[str, str], ...]:
    try:
        pairs = [(one["name"], one.get("value") or "") for one in entries or ()]
    except (TypeError, KeyError, AttributeError):
        pairs = [(None, None)]
    if not all(isinstance(name, str) and isinstance(value, str) for name, value in pairs):
        raise KubeconfigError(
            "'env' of the kubeconfig's credential plugin is not a list of names and values, all texts"
        )
    return tuple(pairs)


def cluster_info(entry: Entry, ca: str | None) -> Mapping[str, Any]:
    """What a plugin may be told about its cluster: the kubeconfig's entry, with the authority's certificate in it."""
    keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    info = {key: entry[key] for key in keys if entry.get(key)}
    if ca:
        info["certificate-authority-data"] = ca
    for extension in entry.get("extensions") or []:
        if isinstance(extension, dict) and extension.get("name") == f"{_GROUP}/exec":
            info["config"] = mapping(extension, "extension")
    return info


async def run(plugin: ExecPlugin, environment: Mapping[str, str], limit: float) -> Grant:
    """Run the program and read what it says, within `limit` seconds. Raises `KubeconfigError` with its own words."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    variables = {**environment, **dict(plugin.environment), "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        process = await asyncio.create_subprocess_exec(
            plugin.command,
            *plugin.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=variables,
            start_new_session=True,  # so that it ends with all it has started
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        hint = f" ({plugin.install_hint})" if plugin.install_hint else ""
        raise _failed(f"cannot run {plugin.command!r}: {why}{hint}") from error
    try:
        async with asyncio.timeout(limit):
            said, complaint = await process.communicate()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise _failed(f"{plugin.command!r} gave nothing within {limit:.0f} s") from None
        raise
    if process.returncode != 0:
        words = _plain(complaint)
        raise _failed(f"it ended with status {process.returncode}" + (f" ({words})" if words else ""))
    return _read(said, plugin.api_version)


def _read(said: bytes, version: str) -> Grant:
    try:
        document = json.loads(said)
    except ValueError as error:
        raise _failed("what it says is not JSON") from error
    if not isinstance(document, dict) or document.get("apiVersion") != version:
        raise _failed(f"what it says is no ExecCredential of {version}")
    status = document.get("status")
    status = status if isinstance(status, dict) else {}
    token, certificate, key = (
        value.strip() if isinstance(value := status.get(name), str) else ""
        for name in ("token", "clientCertificateData", "clientKeyData")
    )
    if bool(certificate) != bool(key):
        raise _failed("it gives a certificate without its key, or the other way round")
    if not (token or certificate):
        raise _failed("it gives neither a token nor a certificate")
    if not token.isprintable():
        raise _failed("its token has line breaks or control characters in it")
    return Grant(
        token=token or None,
        certificate=certificate.encode() or None,
        key=key.encode() or None,
        expires=_timestamp(status.get("expirationTimestamp")),
    )


def _timestamp(value: object) -> float | None:
    if value is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise _failed("its expirationTimestamp is no time") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _plain(complaint: bytes) -> str:
    """The last words in one line: what went wrong stands at the end."""
    words = " ".join(complaint.decode(errors="replace").split())
    return "".join(c for c in words if c.isprintable())[-_LONGEST_WORDS:]


def _failed(why: str) -> KubeconfigError:
    return KubeconfigError(f"the kubeconfig's credential plugin failed: {why}; try it with: kubectl auth whoami")
