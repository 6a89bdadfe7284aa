"""The options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cli import completion
from cli.output import Output


class Form(StrEnum):
    json = "json"
    yaml = "yaml"


class State:
    """What the whole run of tpctl shares: how it speaks."""

    def __init__(self) -> None:
        self.output = Output()


OutputForm = Annotated[
    Form | None, typer.Option("--output", "-o", help="Print the object alone, as JSON or YAML.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and what was asked for by --output.")]
Use = Annotated[
    str,
    typer.Option("--use", help="Which connection, when there are several.", autocompletion=completion.connections),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        help="The workload's namespace; default: the connected one.",
        autocompletion=completion.namespaces,
    ),
]


def begin(context: typer.Context, form: Form | None, quiet: bool) -> Output:
    """The command's output, from its own options or those before the command."""
    state: State = context.obj
    chosen = form.value if form else state.output.form
    state.output = Output(chosen, quiet=quiet or state.output.quiet)
    return state.output
