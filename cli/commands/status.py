"""`tpctl status`."""

from __future__ import annotations

import os

import typer

from cli import render
from cli.options import OutputForm, Quiet, Use, begin
from cli.output import as_dict


def status(context: typer.Context, use: Use = "", output: OutputForm = None, quiet: Quiet = False) -> None:
    """Show the daemon, its connections and engagements."""
    from cli import client, daemon
    from cli.paths import paths
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    where = paths(os.environ)
    sock = daemon.dial(where)
    if sock is None:
        empty = {**as_dict(pb.StatusResult()), "running": False}
        out.show(empty, render.pairs((("Daemon", "not running; tpctl connect starts it"),)))
        return
    sock.close()
    event = client.call(pb.Request(connection=use, status=pb.Status()), out.progress, where=where)
    out.show({**as_dict(event.status), "running": True}, render.status(event.status))
