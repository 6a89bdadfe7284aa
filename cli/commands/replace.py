"""`tpctl replace`."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion, environment, ports, render
from cli.errors import CommandError, ExitStatus, NotRunning
from cli.options import Namespace, OutputForm, Quiet, Use, begin, own_command
from cli.output import Output, as_dict

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb

EXAMPLES = """\b
Examples:
  tpctl replace orders                          each declared port comes here
  tpctl replace orders --port 9000:8080         its port 8080 to port 9000 here
  tpctl replace orders -e .env -- ./orders.py   only while that program runs
  tpctl replace worker --no-ports               its environment, no calls
"""


def replace(
    context: typer.Context,
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD", help="NAME or KIND/NAME.", autocompletion=completion.workloads)
    ],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- CMD", help="Run CMD with the container's environment, then leave."),
    ] = None,
    container: Annotated[
        str,
        typer.Option(
            "--container",
            "-c",
            metavar="NAME",
            help="Which container; needed when there are several.",
            autocompletion=completion.containers,
        ),
    ] = "",
    port: Annotated[
        list[str] | None,
        typer.Option(
            "--port",
            "-p",
            metavar="LOCAL:CONTAINER[/udp]",
            help="Calls of a container port go to a local port, repeatable; default: every declared port to the same"
            " local port.",
        ),
    ] = None,
    no_ports: Annotated[bool, typer.Option("--no-ports", help="Route no port at all.")] = False,
    namespace: Namespace = "",
    address: Annotated[
        str, typer.Option("--address", metavar="HOST", help="Where the local process listens.")
    ] = "127.0.0.1",
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file", "-e", metavar="FILE", help="Write the container's environment here (docker syntax)."
        ),
    ] = None,
    env_json: Annotated[
        Path | None,
        typer.Option("--env-json", "-j", metavar="FILE", help="Write the container's environment here, as JSON."),
    ] = None,
    allow_unsafe_env: Annotated[
        bool, typer.Option("--allow-unsafe-env", help="Let CMD have LD_*, PYTHON*, PATH and the like, too.")
    ] = False,
    use: Use = "",
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Let a local process take a container's place.

    The original stops in every pod of the workload; calls of its ports come to this laptop, until tpctl leave.
    """
    from cli import client, handler
    from cli.newfile import NewFile
    from tunnel.proto import daemon_pb2 as pb

    out = begin(context, output, quiet)
    argv = own_command(context, command)
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
    with ExitStack() as stack:
        files = [
            (stack.enter_context(NewFile(path)), form)
            for path, form in ((env_file, environment.env_file), (env_json, environment.env_json))
            if path is not None
        ]
        result = client.call(pb.Request(connection=use, replace=wish), out.progress).replace
        title = f"{result.engagement.workload}, container {result.engagement.container}"
        if argv:
            stack.enter_context(handler.undone(lambda: out.note(f"tpctl: giving back {title}; one moment")))
        kept = False
        try:
            for file, form in files:
                file.write(form(dict(result.environment)))
            if argv:
                raise ExitStatus(_run(out, argv, result, allow_unsafe_env, use))
            kept = True
        except handler.Lost:
            kept = True
            with suppress(CommandError):  # there may be nothing left to give back
                _give_back(out, use, result)
            raise
        finally:
            if not kept:
                _give_back(out, use, result)
    out.show(as_dict(result), render.replaced(result))


def _run(out: Output, command: list[str], result: pb.ReplaceResult, allow_unsafe: bool, use: str) -> int:
    from cli import client, handler
    from tunnel.proto import daemon_pb2 as pb

    variables, left_out = environment.for_handler(os.environ, result.environment, allow_unsafe=allow_unsafe)
    out.note(render.replaced(result))
    if left_out:
        out.note(f"tpctl: left out of the command's environment: {', '.join(left_out)} (--allow-unsafe-env keeps them)")

    absent = 0

    def lost() -> str:
        """Why the container is not ours any more; empty while it is, or while nobody can tell."""
        nonlocal absent
        try:
            status = client.call(pb.Request(connection=use, status=pb.Status()), out.progress).status
        except NotRunning:
            absent += 1  # once may be a tpd that is just being started again
            return "tpd has ended, and with it this connection; run: tpctl connect" if absent > 1 else ""
        except CommandError:
            return ""
        absent = 0
        return render.lost(status, result.engagement)

    return handler.run(command, variables, lost)


def _give_back(out: Output, use: str, result: pb.ReplaceResult) -> None:
    from cli import client
    from tunnel.proto import daemon_pb2 as pb

    one = result.engagement
    leave = pb.Leave(workload=one.workload, namespace=one.namespace, container=one.container)
    out.note(render.left(client.call(pb.Request(connection=use, leave=leave), out.progress).leave))
