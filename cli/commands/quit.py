"""`tpctl quit`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import render
from cli.options import OutputForm, Quiet, Use, begin
from cli.output import as_dict


def quit_(
    context: typer.Context,
    stop_daemon: Annotated[
        bool, typer.Option("--stop-daemons", "--stop-daemon", "-s", help="Stop tpd, the root daemon, too.")
    ] = False,
    use: Use = "",
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Disconnect; replaced containers come back."""
    from cli import client, daemon
    from cli.paths import paths
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    where = paths(os.environ)
    sock = daemon.dial(where)
    if sock is None:
        out.show(as_dict(pb.QuitResult()), "Not connected (tpd is not running)")
        return
    sock.close()
    request = pb.Request(connection=use, quit=pb.Quit(stop_daemon=stop_daemon))
    result = client.call(request, out.progress, where=where).quit
    out.show(as_dict(result), render.quit_(result, stopped=stop_daemon))
