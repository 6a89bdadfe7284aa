"""`tpctl replace`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion, environment, ports, render
from cli.errors import CommandError, ExitStatus
from cli.options import Namespace, OutputForm, Quiet, Use, begin
from cli.output import Output, as_dict

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb


def replace(
    context: typer.Context,
    workload: Annotated[str, typer.Argument(help="NAME or KIND/NAME.", autocompletion=completion.workloads)],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD]...", help="Run CMD with the container's environment, then leave."),
    ] = None,
    container: Annotated[
        str, typer.Option("--container", "-c", help="Which container; needed when there are several.")
    ] = "",
    port: Annotated[
        list[str] | None,
        typer.Option(
            "--port",
            "-p",
            help="LOCAL:CONTAINER[/udp], repeatable; default: every declared port to the same local port.",
        ),
    ] = None,
    no_ports: Annotated[bool, typer.Option("--no-ports", help="Route no port at all.")] = False,
    namespace: Namespace = "",
    address: Annotated[str, typer.Option("--address", help="Where the local process listens.")] = "127.0.0.1",
    env_file: Annotated[
        Path | None, typer.Option("--env-file", "-e", help="Write the container's environment here (docker syntax).")
    ] = None,
    env_json: Annotated[
        Path | None, typer.Option("--env-json", "-j", help="Write the container's environment here, as JSON.")
    ] = None,
    allow_unsafe_env: Annotated[
        bool, typer.Option("--allow-unsafe-env", help="Let CMD have LD_*, PYTHON*, PATH and the like, too.")
    ] = False,
    use: Use = "",
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Take the place of a container: its traffic comes to this laptop, the original stops."""
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    if port and no_ports:
        raise CommandError("--port and --no-ports contradict each other; give one of them")
    wish = pb.Replace(
        workload=workload,
        namespace=namespace,
        container=container,
        ports=[mapping.text() for mapping in ports.parse_all(port or ())],
        address=address,
        no_ports=no_ports,
    )
    for path in (env_file, env_json):
        if path is not None and not path.absolute().parent.is_dir():
            raise CommandError(f"cannot write {path}: there is no folder {path.absolute().parent}")
    result = client.call(pb.Request(connection=use, replace=wish), out.progress).replace
    kept = False
    try:
        variables = dict(result.environment)
        if env_file is not None:
            _write(env_file, environment.env_file(variables))
        if env_json is not None:
            _write(env_json, environment.env_json(variables))
        if command:
            status = _run(out, command, result, allow_unsafe_env)
            raise ExitStatus(status)
        kept = True
    finally:
        if not kept:
            one = result.engagement
            leave = pb.Leave(workload=one.workload, namespace=one.namespace, container=one.container)
            client.call(pb.Request(connection=use, leave=leave), out.progress)
    out.show(as_dict(result), render.replaced(result))


def _run(out: Output, command: list[str], result: pb.ReplaceResult, allow_unsafe: bool) -> int:
    from cli import handler

    variables, left_out = environment.for_handler(os.environ, result.environment, allow_unsafe=allow_unsafe)
    out.note(render.replaced(result))
    if left_out:
        out.note(f"tpctl: left out of the command's environment: {', '.join(left_out)} (--allow-unsafe-env keeps them)")
    return handler.run(command, variables)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner alone: there may be secrets in it."""
    aside = path.with_name(f".{path.name}.tpctl")
    try:
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(aside, path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
