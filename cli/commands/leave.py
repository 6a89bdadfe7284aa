"""`tpctl leave`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import completion, render
from cli.options import Namespace, OutputForm, Quiet, Use, begin
from cli.output import as_dict


def leave(
    context: typer.Context,
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="NAME or KIND/NAME.", autocompletion=completion.engaged)
    ],
    container: Annotated[
        str,
        typer.Option(
            "--container", "-c", metavar="NAME", help="Only this container.", autocompletion=completion.containers
        ),
    ] = "",
    namespace: Namespace = "",
    use: Use = "",
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """End an engagement; the original container comes back."""
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    wish = pb.Leave(workload=workload, namespace=namespace, container=container)
    result = client.call(pb.Request(connection=use, leave=wish), out.progress).leave
    out.show(as_dict(result), render.left(result))
