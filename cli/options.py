"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from cli import completion
from cli.errors import CommandError
from cli.output import Output


class Form(StrEnum):
    """Forms of the command's object, besides text."""

    json = "json"
    yaml = "yaml"


class State:
    """What the whole run of tpctl shares: how it speaks, and how many words stand behind `--`."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.output = Output()
        self.behind_dashes = len(arguments) - arguments.index("--") - 1 if "--" in arguments else 0


OutputForm = Annotated[
    Form | None, typer.Option("--output", "-o", metavar="json|yaml", help="Print the object alone, in this form.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and what was asked for by --output.")]
Use = Annotated[
    str,
    typer.Option(
        "--use",
        metavar="NAME",
        help="Which connection, when there are several.",
        autocompletion=completion.connections,
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="The workload's namespace; default: the connected one.",
        autocompletion=completion.namespaces,
    ),
]
KubeContext = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="NAME",
        help="Kubeconfig context; default: the current one.",
        autocompletion=completion.contexts,
    ),
]


def begin(context: typer.Context, form: Form | None, quiet: bool) -> Output:
    """The command's output, from its own options or those before the command."""
    state: State = context.obj
    chosen = form.value if form else state.output.form
    state.output = Output(chosen, quiet=quiet or state.output.quiet)
    return state.output


def own_command(context: typer.Context, words: Sequence[str] | None) -> list[str]:
    """The user's own command, `-- CMD`. Raises CommandError for words that stand in front of the `--`."""
    state: State = context.obj
    command = list(words or ())
    if len(command) != state.behind_dashes:
        raise CommandError(
            f"{command[0]!r} is one word too many for {context.command_path}; a command of your own comes after --"
        )
    return command
