"""`tpctl daemon start|stop|logs`."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import OutputForm, Quiet, begin
from cli.output import as_dict

app = typer.Typer(help="Start, stop and look at tpd, the root daemon.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def start(context: typer.Context, output: OutputForm = None, quiet: Quiet = False) -> None:
    """Start tpd, through sudo when need be."""
    from cli import daemon
    from cli.paths import paths

    out = begin(context, output, quiet)
    where = paths(os.environ)
    sock = daemon.dial(where)
    if sock is not None:
        sock.close()
        out.show({"started": False, "socket": str(where.socket)}, "tpd runs already")
        return
    daemon.start(where, out.progress)
    out.progress.stop()
    out.show({"started": True, "socket": str(where.socket)}, f"tpd listens on {where.socket}")


@app.command()
def stop(context: typer.Context, output: OutputForm = None, quiet: Quiet = False) -> None:
    """Disconnect and stop tpd."""
    from cli import client, daemon
    from cli.paths import paths
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    where = paths(os.environ)
    sock = daemon.dial(where)
    if sock is None:
        out.show(as_dict(pb.QuitResult()), "tpd is not running")
        return
    sock.close()
    result = client.call(pb.Request(quit=pb.Quit(stop_daemon=True)), out.progress, where=where).quit
    out.show(as_dict(result), render.quit_(result, stopped=True))


@app.command()
def logs(
    context: typer.Context,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, help="How many of each.")] = 100,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Print the last lines of the logs of tpd and of your session workers.

    Those of tpd are for root and the group tpd. Where systemd runs it, they are in the journal: journalctl -u tpd.
    """
    from cli.paths import as_root, paths

    out = begin(context, output, quiet)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    found: dict[str, list[str]] = {}
    for path in (paths(os.environ).log, *sorted(Path(state, "tpctl").glob("*.log"))):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found[str(path)] = [line.rstrip("\n") for line in deque(file, lines)]
        except FileNotFoundError:
            continue
        except OSError as error:
            out.note(f"tpctl: cannot read {path}: {error.strerror}; run: {as_root('daemon logs')}")
    text = "\n".join(f"==> {path} <==\n" + "\n".join(entries) for path, entries in found.items())
    out.show({"logs": found}, text or "There are no logs yet")
