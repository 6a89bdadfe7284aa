"""The worker's process: one control socket, one TUN descriptor, one connection."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from tpd.session.commands import Commands
from tpd.session.connection import Connection
from tpd.session.control import Control
from tunnel import control as framing
from tunnel import logs
from tunnel.aio.signals import stop_on_signals
from tunnel.aio.tasks import Tasks
from tunnel.proto import daemon_pb2
from tunnel.tun.linux import LinuxTun

log = logging.getLogger(__name__)

_END_LIMIT = 1.8
"""Seconds between the control socket's end and ours; tpd kills after three."""


def main(arguments: list[str] | None = None) -> int:
    """Run until the control socket closes."""
    parser = argparse.ArgumentParser(prog="tpd.session", description="Session worker; started by tpd.")
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    sock = framing.inherited_socket(options.control_fd)
    try:
        first, tun_fd = framing.receive_with_fd(sock, daemon_pb2.ToWorker)
    except framing.BadMessage as error:
        sys.stderr.write(f"the control socket brought no start message: {error}\n")
        return 1
    start = first.start
    _log_to(start.log_file)
    log.debug("started by tpd for device %s", start.device)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # we only fork to exec
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its failures reach us as statuses
    import uvloop

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # at the end of a login session it comes right behind SIGTERM
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(sock, start, tun_fd))
    except Exception:
        log.exception("ended by a bug")  # what is printed gets no further than the last line
        raise
    return 0


async def _serve(sock: socket.socket, start: daemon_pb2.WorkerStart, tun_fd: int) -> None:
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    control = Control(writer)
    background, requests = Tasks("connection"), Tasks("request")
    connection = Connection(start, LinuxTun(tun_fd), control, background)
    commands = Commands(connection, start.log_file, requests)
    with stop_on_signals() as stop:
        reading = asyncio.get_running_loop().create_task(_read(reader, control, connection, commands), name="control")
        stopping = asyncio.get_running_loop().create_task(stop.wait(), name="stop")
        await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
        log.info("ending: %s", "asked by signal" if stop.is_set() else "the control socket closed")
        reading.cancel()
        stopping.cancel()
        try:
            async with asyncio.timeout(_END_LIMIT):
                await requests.stop()
                await connection.close()
        except TimeoutError:
            log.warning("could not release everything in time; leases end the rest")
        writer.close()


async def _read(reader: asyncio.StreamReader, control: Control, connection: Connection, commands: Commands) -> None:
    """Until tpd closes the socket, or sends garbage."""
    while True:
        try:
            message = await framing.read(reader, daemon_pb2.ToWorker)
        except (framing.BadMessage, ConnectionError) as error:
            log.error("the control socket broke: %s", error)
            return
        if message is None:
            return
        match message.WhichOneof("message"):
            case "request":
                number = message.request.id
                commands.start(number, message.request.request, partial(control.event, number))
            case "cancel":
                commands.cancel(message.cancel)
            case "host_reply":
                control.host_reply(message.host_reply)
            case "upstreams":
                connection.set_upstreams(message.upstreams)
            case other:
                log.warning("tpd sent something unknown: %s", other)


def _log_to(path: str) -> None:
    """Log to the file that tpd named (in the user's own state directory), or to stderr."""
    level = os.environ.get("TPCTL_LOG_LEVEL", "info")
    try:
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            logs.begin(level, Path(path))
            return
    except OSError as error:
        sys.stderr.write(f"cannot log to {path}: {error.strerror}\n")
    logs.begin(level)
