"""`python -m integration.cluster`: the local Kubernetes by hand."""

import argparse
import os
import sys
from collections.abc import Callable

from integration.cluster import images
from integration.cluster.build import binaries
from integration.cluster.cluster import Cluster, down
from integration.cluster.commands import say, step
from integration.cluster.errors import ClusterError
from integration.cluster.laptop_cli import add_commands
from integration.cluster.places import DEFAULT_NAME, left_by_killed_runs

Command = Callable[[argparse.Namespace], None]


def _up(options: argparse.Namespace) -> None:
    cluster = Cluster.up(options.name)
    cluster.load_project()
    say(f"export KUBECONFIG={cluster.admin_kubeconfig}")


def _down(options: argparse.Namespace) -> None:
    for name in [options.name, *left_by_killed_runs()]:
        down(name)


def _status(options: argparse.Namespace) -> None:
    cluster = Cluster.find(options.name)
    say(f"Cluster {options.name}: node held by process {cluster.node.pid}, kubeconfig {cluster.admin_kubeconfig}")
    sys.stdout.write(cluster.kubectl("get", "nodes,pods", "--all-namespaces", "-o", "wide"))


def _kubeconfig(options: argparse.Namespace) -> None:
    cluster = Cluster.find(options.name)
    server = options.server or (None if options.for_laptop else f"https://127.0.0.1:{cluster.api_port}")
    sys.stdout.write(cluster.kubeconfig(options.user, options.group, server=server) + "\n")


def _kubectl(options: argparse.Namespace) -> None:
    cluster = Cluster.find(options.name)
    arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    os.environ["KUBECONFIG"] = str(cluster.admin_kubeconfig)
    os.execv(binaries() / "kubectl", ["kubectl", *arguments])


def _images(options: argparse.Namespace) -> None:
    _load(Cluster.find(options.name), options.image or ["test", "manager", "agent"])


def _build(options: argparse.Namespace) -> None:
    say(str(binaries()))


def _load(cluster: Cluster, names: list[str]) -> None:
    with step(f"images {', '.join(names)}"):
        cluster.load([images.RECIPES[name]() for name in names])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m integration.cluster", description="A real Kubernetes, here.")
    parser.add_argument("--name", default=DEFAULT_NAME, help="which cluster, when there are several")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    add("up", _up, "start it (or find it running) and load the images")
    add("down", _down, "end it with all its laptops, and what killed test runs left; leaves nothing")
    add("status", _status, "what runs")
    add("build", _build, "only build the binaries")
    user = add("kubeconfig", _kubeconfig, "print a kubeconfig for a user")
    user.add_argument("user")
    user.add_argument("--group", action="append", default=[], help="may be repeated; system:masters may do all")
    user.add_argument("--for-laptop", action="store_true", help="with the address that laptops use")
    user.add_argument("--server", help="with this address")
    kubectl = add("kubectl", _kubectl, "run kubectl as the administrator")
    kubectl.add_argument("arguments", nargs=argparse.REMAINDER)
    add_commands(commands.add_parser("laptop", help="make, use and delete laptops"))
    image = add("images", _images, "build what changed and load it into the node")
    image.add_argument("image", nargs="*", choices=[*images.RECIPES, []])
    return parser


def main() -> int:
    options = _parser().parse_args()
    run: Command = options.run
    try:
        run(options)
    except ClusterError as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
