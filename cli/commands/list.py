"""`tpctl list`."""

from __future__ import annotations

import typer

from cli import render
from cli.options import Namespace, OutputForm, Quiet, Use, begin
from cli.output import as_dict


def list_(
    context: typer.Context, namespace: Namespace = "", use: Use = "", output: OutputForm = None, quiet: Quiet = False
) -> None:
    """List the workloads that can be engaged, and who engages them."""
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    request = pb.Request(connection=use, list=pb.ListWorkloads(namespace=namespace))
    result = client.call(request, out.progress).list
    out.show(as_dict(result), render.workloads(result, namespace))
