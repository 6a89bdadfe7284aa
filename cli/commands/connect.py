"""`tpctl connect`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import completion, render
from cli.errors import CommandError, ExitStatus, NotRunning
from cli.options import KubeContext, OutputForm, Quiet, begin, own_command
from cli.output import Output, as_dict
from cli.paths import absolute


def connect(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD", help="Run CMD while connected, then quit.")
    ] = None,
    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAMESPACE",
            help="Whose services are known by their bare names; default: the context's own.",
            autocompletion=completion.cluster_namespaces,
        ),
    ] = "",
    kube_context: KubeContext = "",
    kubeconfig: Annotated[
        list[Path] | None, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig file, repeatable.")
    ] = None,
    manager_namespace: Annotated[
        str,
        typer.Option(
            "--manager-namespace",
            metavar="NAMESPACE",
            help="Where the traffic-manager is; default: wherever one is found.",
            autocompletion=completion.cluster_namespaces,
        ),
    ] = "",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the connection; default: CONTEXT-NAMESPACE.")
    ] = "",
    mapped_namespaces: Annotated[
        list[str] | None,
        typer.Option("--mapped-namespaces", metavar="A,B,...", help="Whose names are served; default: all."),
    ] = None,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Connect this laptop to a cluster.

    Services and pods are reached by name and by address from then on, until tpctl quit. Starts tpd, the root daemon,
    through sudo where it does not run.
    """
    from cli import client, handler
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    argv = own_command(context, command)
    mapped = [part.strip() for text in mapped_namespaces or () for part in text.split(",") if part.strip()]
    request = pb.Request(
        connect=pb.Connect(
            name=name,
            namespace=namespace,
            context=kube_context,
            kubeconfig=[absolute(path) for path in kubeconfig or ()],
            manager_namespace=manager_namespace,
            mapped_namespaces=mapped,
            environment=_environment(),
            working_directory=_here(),
        )
    )
    result = client.call(request, out.progress, start=True).connect
    if not argv:
        out.show(as_dict(result), render.connected(result))
        return
    out.note(render.connected(result))
    with handler.undone(lambda: out.note(f"tpctl: disconnecting {result.name}; one moment")):
        try:
            status = handler.run(argv, os.environ)
        finally:
            if not result.existed:
                _disconnect(out, result.name)
    raise ExitStatus(status)


def _disconnect(out: Output, name: str) -> None:
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    try:
        client.call(pb.Request(connection=name, quit=pb.Quit()), out.progress)
    except CommandError:
        if _connected(out, name):
            raise
        out.note(f"tpctl: {name} was disconnected meanwhile")


def _connected(out: Output, name: str) -> bool:
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    try:
        status = client.call(pb.Request(status=pb.Status()), out.progress).status
    except NotRunning:
        return False
    return any(one.connection.name == name and one.state != "failed" for one in status.connections)


def _here() -> str:
    """The current folder, against which the worker reads relative paths; empty where it is gone or is no text."""
    try:
        here = os.getcwd()
    except OSError:
        return ""
    return here if _is_text(here) else ""


def _environment() -> dict[str, str]:
    """The caller's, as text that protobuf can carry."""
    return {key: value for key, value in os.environ.items() if _is_text(key) and _is_text(value)}


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
