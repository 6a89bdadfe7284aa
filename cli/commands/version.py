"""`tpctl version`."""

from __future__ import annotations

import os

import typer

from cli import render
from cli.options import OutputForm, Quiet, begin
from tunnel.version import VERSION


def version(context: typer.Context, output: OutputForm = None, quiet: Quiet = False) -> None:
    """Show the versions of tpctl, tpd and managers."""
    from cli import client, daemon
    from cli.paths import paths
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    where = paths(os.environ)
    own, managers = "", {}
    sock = daemon.dial(where)
    if sock is not None:
        sock.close()
        result = client.call(pb.Request(get_version=pb.Version()), out.progress, where=where).get_version
        own, managers = result.daemon, dict(result.managers)
    out.show({"client": VERSION, "daemon": own, "managers": managers}, render.version(VERSION, own, managers))
