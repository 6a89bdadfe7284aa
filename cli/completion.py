"""What the shell offers: contexts from the kubeconfig, namespaces and workloads from the running connection.

A failure offers nothing; it never prints.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cli.errors import CommandError

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb


def contexts(incomplete: str) -> list[str]:
    from cli import kubeconfig

    return [name for name in kubeconfig.contexts(os.environ) if name.startswith(incomplete)]


def namespaces(incomplete: str) -> list[str]:
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(pb.Request(list_namespaces=pb.ListNamespaces()))
    return [name for name in event.list_namespaces.namespaces if name.startswith(incomplete)] if event else []


def workloads(incomplete: str) -> list[str]:
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(pb.Request(list=pb.ListWorkloads()))
    return [one.name for one in event.list.workloads if one.name.startswith(incomplete)] if event else []


def connections(incomplete: str) -> list[str]:
    from tunnel.proto import daemon_pb2 as pb

    event = _ask(pb.Request(status=pb.Status()))
    names = [one.connection.name for one in event.status.connections] if event else []
    return [name for name in names if name.startswith(incomplete)]


def _ask(request: pb.Request) -> pb.Event | None:
    from cli.client import call
    from cli.progress import Progress

    try:
        return call(request, Progress(quiet=True))
    except CommandError:
        return None
