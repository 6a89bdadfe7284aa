"""The command `tpd`: start, take over the machine's state from an earlier tpd, serve, undo everything, end."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunnel import logs
from tunnel.version import VERSION

log = logging.getLogger("tpd")

_KEPT_ENVIRONMENT = ("SUDO_UID", "LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET")


@dataclass(frozen=True)
class Options:
    """The command line."""

    socket: Path
    state: Path
    log_file: Path
    policy: Path
    foreground: bool
    restore: bool
    worker: str


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; ends the process when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="tpd", description="The root daemon of tpctl; tpctl connect starts it when it is needed."
    )
    parser.add_argument("--socket", default="/run/tpd/tpd.sock", help="where tpctl reaches it (default %(default)s)")
    parser.add_argument("--state-dir", default="/var/lib/tpd", help="the journal of changes (default %(default)s)")
    parser.add_argument("--log-file", default="/var/log/tpd/tpd.log", help="default %(default)s")
    parser.add_argument("--policy", default="/etc/tpd/policy.yaml", help="what workers may ask (default %(default)s)")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground and log to standard error")
    parser.add_argument("--restore", action="store_true", help="only undo what an earlier tpd left behind, then end")
    parser.add_argument("--worker", default="tpd.session", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=VERSION)
    values = parser.parse_args(arguments)
    return Options(
        socket=Path(values.socket),
        state=Path(values.state_dir),
        log_file=Path(values.log_file),
        policy=Path(values.policy),
        foreground=values.foreground,
        restore=values.restore,
        worker=values.worker,
    )


def main() -> None:
    """Entry point of the script; isolates itself from the caller's environment first."""
    if not sys.flags.isolated or set(os.environ) - {*_KEPT_ENVIRONMENT, "PATH", "LC_ALL"}:
        # Nothing of the caller's may steer a root process: not PYTHON*, LD_* nor the current folder.
        environment = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        command = [sys.executable, "-I", "-m", "tpd.supervisor.main", *sys.argv[1:]]
        os.execve(sys.executable, command, environment)
    options = parse(sys.argv[1:])
    if os.geteuid() != 0:
        sys.exit("tpd must run as root: use sudo, or let tpctl connect start it")
    os.umask(0o022)
    os.chdir("/")
    try:
        lock = _lock(options.state)
        if options.foreground or options.restore:
            _logging(None)
            sys.exit(asyncio.run(_run(options, ready=-1)))
        _detach(options, lock)
    except OSError as error:
        sys.exit(
            f"tpd cannot start: {error.strerror}: {error.filename}" if error.filename else f"tpd cannot start: {error}"
        )


def _lock(state: Path) -> int:
    """One tpd per state folder, so that nobody undoes the journal of a living one."""
    state.mkdir(parents=True, exist_ok=True, mode=0o755)
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("tpd runs already; look at it with: tpctl status")
    return fd


def _detach(options: Options, lock: int) -> None:
    """Go on in the background; the caller's process ends when the socket listens, with status 1 if it never does."""
    options.log_file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    ours, theirs = os.pipe()
    if os.fork():
        os.close(theirs)
        text = b""
        while part := os.read(ours, 4096):
            text += part
        message = text.decode(errors="replace")
        if message != "ready":
            print(message or f"tpd ended at once; see {options.log_file}", file=sys.stderr)  # noqa: T201  no log yet
            os._exit(1)
        os._exit(0)
    os.close(ours)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    _logging(options.log_file)
    status = 1
    try:
        status = asyncio.run(_run(options, ready=theirs))
    except OSError as error:
        log.error("ended: %s", error)
        os.write(theirs, f"tpd cannot start: {error}".encode())
    except Exception:
        log.exception("ended")  # nobody else would say it
    finally:
        logging.shutdown()
        os._exit(status)


def _logging(path: Path | None) -> None:
    from tpd.supervisor import users

    logs.begin("info", path, users.group_id())
    logging.getLogger("pyroute2").setLevel(logging.WARNING)


async def _run(options: Options, ready: int) -> int:
    from tpd.supervisor import users
    from tpd.supervisor.host.linux import LinuxHost
    from tpd.supervisor.server import Server, notify_ready
    from tpd.supervisor.supervisor import Supervisor
    from tunnel.aio.tasks import Tasks

    host = LinuxHost(state=options.state, policy_file=options.policy)
    for text in await host.restore():
        log.info("%s", text)
    if options.restore:
        return 0
    loop = asyncio.get_running_loop()
    tasks = Tasks("tpd")
    supervisor = Supervisor(host, tasks, module=options.worker)
    server = Server(options.socket, supervisor.handle, starter=users.starter(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # logind ends a session with SIGTERM and SIGHUP
        loop.add_signal_handler(number, supervisor.stop.set)
    try:
        await server.start()
        log.info("tpd %s listens on %s", VERSION, options.socket)
        notify_ready()
        if ready >= 0:
            os.write(ready, b"ready")
            os.close(ready)
        watch = tasks.spawn(supervisor.watch(), name="resolver watch")
        await supervisor.stop.wait()
        log.info("stopping")
        watch.cancel()
    finally:
        await server.close()
        await supervisor.shutdown()
        await server.drain(2)
        await tasks.stop()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    main()
