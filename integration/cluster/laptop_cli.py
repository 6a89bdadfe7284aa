"""`python -m integration.cluster laptop ...`: laptops by hand."""

import argparse
import os
import sys

from integration.cluster.cluster import Cluster
from integration.cluster.commands import say
from integration.cluster.errors import ClusterError
from integration.cluster.laptop import Laptop, all_laptops
from integration.cluster.laptop_files import ACCOUNTS


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `laptop` to its parser."""
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    create = commands.add_parser("create", help="make a laptop")
    create.add_argument("laptop")
    create.add_argument(
        "--rtt", type=float, metavar="MS", help="round trip to the API server; 0 is a line without delay"
    )
    create.add_argument("--resolver", choices=["file", "systemd-resolved"], default="file")
    create.add_argument("--user", default="admin", help="who its kubeconfig says it is")
    create.add_argument("--group", action="append", help="groups of that user; system:masters for admin by default")
    create.set_defaults(run=_create)
    shell = commands.add_parser("shell", help="a shell in it; makes it when there is none")
    shell.add_argument("laptop")
    shell.add_argument("--as", dest="account", choices=sorted(ACCOUNTS), default="dev")
    shell.set_defaults(run=_shell)
    execute = commands.add_parser("exec", help="run a command in it: exec [--as ACCOUNT] NAME -- CMD")
    execute.add_argument("--as", dest="account", choices=sorted(ACCOUNTS), default="dev")
    execute.add_argument("laptop")
    execute.add_argument("command", nargs=argparse.REMAINDER)  # as it is: CMD may have a -- of its own
    execute.set_defaults(run=_exec)
    for name, text in {
        "delete": "end it with all its processes",
        "cut": "reset its connections to the API server and refuse new ones",
        "silence": "lose every packet to and from the API server",
        "restore": "end a cut or a silence",
        "state": "print rules, routes, nft tables, links and resolver",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("laptop")
        command.set_defaults(run=_change, change=name)
    commands.add_parser("list", help="the laptops there are").set_defaults(run=_list)


def _create(options: argparse.Namespace) -> None:
    groups = options.group or (["system:masters"] if options.user == "admin" else [])
    rtt = None if options.rtt is None else options.rtt / 1000
    laptop = Laptop.create(
        Cluster.find(options.name),
        options.laptop,
        user=options.user,
        groups=groups,
        rtt=rtt,
        resolver=options.resolver,
    )
    say(f"Laptop {laptop.name} has the address {laptop.address} and reaches {laptop.api_server}.")


def _shell(options: argparse.Namespace) -> None:
    cluster = Cluster.find(options.name)
    known = {laptop.name for laptop in all_laptops(cluster)}
    laptop = Laptop.find(cluster, options.laptop) if options.laptop in known else Laptop.create(cluster, options.laptop)
    shell = ["sh", "-c", f"PS1='{options.account}@{laptop.name} $ ' exec sh -i"]
    _replace_process(laptop.argv(shell, user=options.account, env=_terminal()))


def _exec(options: argparse.Namespace) -> None:
    laptop = Laptop.find(Cluster.find(options.name), options.laptop)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise ClusterError("say which command to run: exec NAME -- CMD")
    _replace_process(laptop.argv(command, user=options.account, env=_terminal(), cwd=os.getcwd()))


def _change(options: argparse.Namespace) -> None:
    laptop = Laptop.find(Cluster.find(options.name), options.laptop)
    match options.change:
        case "delete":
            laptop.delete()
        case "cut":
            laptop.cut()
        case "silence":
            laptop.silence()
        case "restore":
            laptop.restore()
        case "state":
            sys.stdout.write(laptop.host_state())


def _list(options: argparse.Namespace) -> None:
    for laptop in all_laptops(Cluster.find(options.name)):
        rtt = "direct" if laptop.rtt is None else f"{laptop.rtt * 1000:g} ms"
        state = "running" if laptop.room.alive else "dead"
        sys.stdout.write(f"{laptop.name}\t{laptop.address}\t{rtt}\t{state}\n")


def _terminal() -> dict[str, str]:
    return {"TERM": os.environ.get("TERM", "dumb")}


def _replace_process(argv: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(argv[0], argv)
