"""What the shell offers: names from the kubeconfig, from the running connection, or from the cluster itself.

A failure offers nothing; it never prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb

PATIENCE = 5.0
"""Seconds for a cluster to name its namespaces while somebody waits behind the Tab key."""


def contexts(context: typer.Context, incomplete: str) -> list[str]:
    """Of the kubeconfig that the command line names, or the usual one."""
    from cli import kubeconfig

    files = os.pathsep.join(_files(context))
    environment = {**os.environ, "KUBECONFIG": files} if files else os.environ
    return _matching(kubeconfig.contexts(environment), incomplete)


def namespaces(context: typer.Context, incomplete: str) -> list[str]:
    """Of the running connection."""
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(context, pb.Request(list_namespaces=pb.ListNamespaces()))
    return _matching(event.list_namespaces.namespaces if event else [], incomplete)


def cluster_namespaces(context: typer.Context, incomplete: str) -> list[str]:
    """Of the cluster that the command line, or the kubeconfig, names; asked by a program that may import a client."""
    command = [sys.executable, "-I", "-m", "tpd.session.namespaces"]
    for file in _files(context):
        command += ["--kubeconfig", file]
    if name := context.params.get("kube_context"):
        command += ["--context", name]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
        return _matching(json.loads(done.stdout), incomplete)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def workloads(context: typer.Context, incomplete: str) -> list[str]:
    """Of the namespace that the command line names, or the connected one."""
    return _matching((one.name for one in _workloads(context)), incomplete)


def containers(context: typer.Context, incomplete: str) -> list[str]:
    """Of the workload that the command line names."""
    words = [context.params.get("workload"), *context.args, ""]  # in args while an option still lacks its value
    name = next(str(word) for word in words if word is not None).rpartition("/")[2]
    return _matching((c for one in _workloads(context) if one.name == name for c in one.containers), incomplete)


def engaged(context: typer.Context, incomplete: str) -> list[str]:
    """What the user has engaged, wherever it is."""
    held = (item.workload for one in _connections(context) for item in one.engagements)
    return _matching((name.rpartition("/")[2] for name in held), incomplete)


def connections(context: typer.Context, incomplete: str) -> list[str]:
    """The user's own connections."""
    return _matching((one.connection.name for one in _connections(context)), incomplete)


def _connections(context: typer.Context) -> list[pb.ConnectionStatus]:
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(context, pb.Request(status=pb.Status()))
    return list(event.status.connections) if event else []


def _workloads(context: typer.Context) -> list[pb.Workload]:
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(context, pb.Request(list=pb.ListWorkloads(namespace=context.params.get("namespace") or "")))
    return list(event.list.workloads) if event else []


def _files(context: typer.Context) -> list[str]:
    given = context.params.get("kubeconfig") or ()
    return [os.path.abspath(path) for path in ((given,) if isinstance(given, (str, os.PathLike)) else given)]


def _matching(names: Any, incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _ask(context: typer.Context, request: pb.Request) -> pb.Event | None:
    from cli.client import call
    from cli.progress import Progress

    request.connection = context.params.get("use") or ""
    try:
        return call(request, Progress(quiet=True))
    except CommandError:
        return None
