"""The command `tpctl`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from cli import daemon as daemon_control
from cli.commands import connect, daemon, helm, leave, quit, replace, status, version
from cli.commands import list as list_command
from cli.errors import CommandError, ExitStatus
from cli.options import OutputForm, Quiet, State, begin
from cli.output import Output, write
from cli.paths import paths

_LITERAL = {"ignore_unknown_options": False, "help_option_names": ["-h", "--help"]}


def application() -> typer.Typer:
    """All commands."""
    app = typer.Typer(
        name="tpctl",
        help="Let this laptop act as if it were inside a Kubernetes cluster.",
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help: rich alone would cost a third of the start-up time
        pretty_exceptions_enable=False,
        context_settings=_LITERAL,
    )
    app.callback()(_before)
    app.command("connect")(connect.connect)
    app.command("status")(status.status)
    app.command("list")(list_command.list_)
    app.command("replace", epilog=replace.EXAMPLES)(replace.replace)
    app.command("leave")(leave.leave)
    app.command("quit")(quit.quit_)
    app.command("version")(version.version)
    app.add_typer(helm.app, name="helm")
    app.add_typer(daemon.app, name="daemon")
    return app


def _before(context: typer.Context, output: OutputForm = None, quiet: Quiet = False) -> None:
    out = begin(context, output, quiet)
    # After a crash of everything the next command, whichever it is, brings the laptop's network back.
    try:
        daemon_control.restore(paths(os.environ), out.progress)
    except CommandError as error:
        if context.invoked_subcommand not in ("helm", "version"):
            raise
        out.note(f"tpctl: {error}")  # these do without the laptop's network
    finally:
        out.progress.stop()


def main() -> None:
    """Entry point: exit status 0, 1, or the handler's own."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit status."""
    state = State(arguments)
    state.output = Output(_form(arguments))
    try:
        status = application()(list(arguments), prog_name="tpctl", standalone_mode=False, obj=state)
    except ExitStatus as wanted:
        return wanted.status
    except CommandError as error:
        state.output.fail(str(error))
        return 1
    except UnicodeEncodeError as error:  # a path or a name, as the system gave it to us
        if error.encoding != "utf-8":  # of the terminal
            raise
        state.output.fail(
            f"{str(error.object)[:100]!r} is not UTF-8 text, which tpctl cannot pass on; name it otherwise"
        )
        return 1
    except typer.TyperException as error:
        formatted = getattr(error, "format_message", None)
        text = formatted() if formatted else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            write(text)
            return 0
        where = getattr(error, "ctx", None)
        see = f"see: {where.command_path if where else 'tpctl'} --help"
        state.output.fail(f"{text[:1].lower()}{text[1:].rstrip('.')}; {see}" if text else see)
        return 1
    except (typer.Abort, KeyboardInterrupt):
        state.output.fail("interrupted")
        return 1
    if status == 130:  # what Typer makes of a Ctrl-C
        state.output.fail("interrupted")
    return 1 if status else 0


def _form(arguments: Sequence[str]) -> str:
    """The form that `--output` asks for, before the options are parsed: wrong options are reported in it, too."""
    for position, word in enumerate(arguments):
        if word == "--":
            break
        value = word.removeprefix("--output=") if word.startswith("--output=") else ""
        if word in ("--output", "-o"):
            value = arguments[position + 1] if position + 1 < len(arguments) else ""
        if value in ("json", "yaml"):
            return value
    return "text"


if __name__ == "__main__":
    main()
