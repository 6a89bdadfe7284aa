"""One request to tpd and its events."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cli import daemon
from cli.errors import CommandError, NotRunning
from cli.paths import Paths, paths
from cli.progress import Progress
from tunnel.version import VERSION

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb

SILENCE = 900.0
"""Seconds without any event after which tpd is given up: longer than it lets the cluster take for one step."""


def call(request: pb.Request, progress: Progress, *, start: bool = False, where: Paths | None = None) -> pb.Event:
    """Send the request and return the final event. Raises CommandError; `start`: start tpd when nobody listens."""
    from tunnel import control
    from tunnel.proto import daemon_pb2 as pb

    where = where or paths(os.environ)
    sock = daemon.dial(where)
    if sock is None and start:
        progress.step("daemon", "starting tpd")
        daemon.start(where, progress)
        sock = daemon.dial(where)
    if sock is None:
        raise NotRunning("not connected (tpd is not running); run: tpctl connect")
    request.version = VERSION
    with sock:
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                # When it fails, tpd has said no already; its reason is still to be read.
                control.send(sock, request)
            last = time.monotonic()
            while True:
                if not select.select([sock], [], [], progress.tick())[0]:
                    if time.monotonic() - last > SILENCE:
                        raise CommandError(f"tpd has said nothing for {SILENCE:g} s; look at: tpctl daemon logs")
                    continue
                sock.settimeout(10)
                event = control.receive(sock, pb.Event)
                sock.settimeout(None)
                last = time.monotonic()
                if event is None:
                    raise NotRunning("tpd ended in the middle of the command; look at: tpctl daemon logs")
                match event.WhichOneof("event"):
                    case "progress":
                        progress.step(event.progress.step, event.progress.text, done=event.progress.done)
                    case "error":
                        raise CommandError(_text(event.error))
                    case _:
                        return event
        except (control.BadMessage, OSError) as error:
            raise CommandError(f"tpd cannot be understood ({error}); run: tpctl quit -s") from None
        finally:
            progress.stop()


def _text(error: pb.Error) -> str:
    from tunnel.proto import daemon_pb2 as pb

    if error.category == pb.INTERNAL:
        return f"{error.text} (the logs say more: tpctl daemon logs)"
    return error.text
