"""`tpctl helm install|upgrade|uninstall|lint`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli import helm as helm_run
from cli.errors import CommandError
from cli.options import OutputForm, Quiet, begin
from cli.output import Output

app = typer.Typer(
    help="Install the traffic-manager with the embedded chart (real Helm).", no_args_is_help=True, rich_markup_mode=None
)

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="Where the traffic-manager lives.",
        autocompletion=completion.cluster_namespaces,
    ),
]
Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig file.")]
Context = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="NAME",
        help="Kubeconfig context; default: the current one.",
        autocompletion=completion.contexts,
    ),
]
Values = Annotated[
    list[str] | None, typer.Option("--values", "-f", metavar="FILE|URL", help="Values of the chart, repeatable.")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One value, repeatable.")]
SetString = Annotated[list[str] | None, typer.Option("--set-string", metavar="KEY=TEXT", help="One value, as text.")]
SetJson = Annotated[list[str] | None, typer.Option("--set-json", metavar="KEY=JSON", help="One value, as JSON.")]
SetFile = Annotated[list[str] | None, typer.Option("--set-file", metavar="KEY=FILE", help="One value, from a file.")]
Create = Annotated[bool, typer.Option("--create-namespace/--no-create-namespace", help="Make the namespace.")]
NoHooks = Annotated[bool, typer.Option("--no-hooks", help="Run no hooks.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the traffic-manager is ready.")]
Timeout = Annotated[int, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")]


def _values(
    values: list[str] | None,
    set_: list[str] | None,
    set_string: list[str] | None,
    set_json: list[str] | None,
    set_file: list[str] | None,
) -> list[str]:
    arguments: list[str] = []
    for flag, entries in (
        ("--values", values),
        ("--set", set_),
        ("--set-string", set_string),
        ("--set-json", set_json),
        ("--set-file", set_file),
    ):
        for entry in entries or ():
            arguments += [flag, entry]
    return arguments


def _cluster(kubeconfig: Path | None, context: str) -> list[str]:
    """Which cluster, for the programs of our own."""
    arguments = ["--kubeconfig", os.path.abspath(kubeconfig)] if kubeconfig is not None else []
    return arguments + (["--context", context] if context else [])


def _wait(out: Output, namespace: str, kubeconfig: Path | None, context: str, timeout: int) -> None:
    arguments = ["--namespace", namespace, "--timeout", str(timeout), *_cluster(kubeconfig, context)]
    again = "tpctl helm upgrade" + ("" if namespace == helm_run.NAMESPACE else f" -n {namespace}")
    try:
        helm_run.spawn("tpd.session.rollout", arguments, out.progress, "it did not become ready")
    except CommandError as error:
        raise CommandError(f"the traffic-manager is installed, but {error}; mend that, then run: {again}") from None


@app.command()
def install(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: Context = "",
    values: Values = None,
    set_: Set = None,
    set_string: SetString = None,
    set_json: SetJson = None,
    set_file: SetFile = None,
    create_namespace: Create = True,
    no_hooks: NoHooks = False,
    wait: Wait = True,
    timeout: Timeout = 120,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Install the traffic-manager in a cluster."""
    out = begin(context, output, quiet)
    arguments = ["install", helm_run.RELEASE, str(helm_run.chart())]
    arguments += helm_run.kube_arguments(namespace, kubeconfig, kube_context)
    arguments += ["--create-namespace"] if create_namespace else []
    arguments += ["--no-hooks"] if no_hooks else []
    arguments += _values(values, set_, set_string, set_json, set_file)
    out.progress.step("helm", f"installing the traffic-manager in namespace {namespace}")
    helm_run.run(arguments)
    if wait:
        _wait(out, namespace, kubeconfig, kube_context, timeout)
    out.progress.stop()
    ready = " and ready" if wait else ""
    out.show(
        {"action": "install", "release": helm_run.RELEASE, "namespace": namespace, "ready": wait},
        f"The traffic-manager is installed in namespace {namespace}{ready}; run: tpctl connect",
    )


@app.command()
def upgrade(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: Context = "",
    values: Values = None,
    set_: Set = None,
    set_string: SetString = None,
    set_json: SetJson = None,
    set_file: SetFile = None,
    reuse_values: Annotated[bool, typer.Option("--reuse-values", help="Start from the last release's values.")] = False,
    reset_values: Annotated[bool, typer.Option("--reset-values", help="Start from the chart's values.")] = False,
    no_hooks: NoHooks = False,
    wait: Wait = True,
    timeout: Timeout = 120,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Upgrade or reconfigure the traffic-manager.

    Its custom resource definitions are upgraded, too. Without values of its own it keeps those of the release.
    """
    out = begin(context, output, quiet)
    arguments = ["upgrade", helm_run.RELEASE, str(helm_run.chart())]
    arguments += helm_run.kube_arguments(namespace, kubeconfig, kube_context)
    arguments += ["--reuse-values"] if reuse_values else []
    arguments += ["--reset-values"] if reset_values else []
    arguments += ["--no-hooks"] if no_hooks else []
    arguments += _values(values, set_, set_string, set_json, set_file)
    helm_run.run(["status", helm_run.RELEASE, *helm_run.kube_arguments(namespace, kubeconfig, kube_context)])
    out.progress.step("helm", f"upgrading the traffic-manager in namespace {namespace}")
    cluster = _cluster(kubeconfig, kube_context)
    definitions = [str(path) for path in sorted((helm_run.chart() / "crds").glob("*.yaml"))]
    # Helm never touches the definitions of an existing release (helm.sh/docs/topics/charts, "Limitations on CRDs").
    helm_run.spawn(
        "tpd.session.apply", [*cluster, *definitions], out.progress, "the custom resource definitions cannot be applied"
    )
    helm_run.run(arguments)
    if wait:
        _wait(out, namespace, kubeconfig, kube_context, timeout)
    out.progress.stop()
    ready = " and ready" if wait else ""
    out.show(
        {"action": "upgrade", "release": helm_run.RELEASE, "namespace": namespace, "ready": wait},
        f"The traffic-manager in namespace {namespace} is upgraded{ready}",
    )


@app.command()
def uninstall(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: Context = "",
    release: Annotated[
        bool, typer.Option("--release/--no-release", help="First give back every container that is replaced.")
    ] = True,
    no_hooks: NoHooks = False,
    timeout: Timeout = 120,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Remove the traffic-manager.

    Every replaced container is given back first. The definitions of the custom resources stay.
    """
    out = begin(context, output, quiet)
    helm_run.run(["status", helm_run.RELEASE, *helm_run.kube_arguments(namespace, kubeconfig, kube_context)])
    if release:
        cluster = _cluster(kubeconfig, kube_context)
        helm_run.spawn(
            "tpd.session.release",
            ["--namespace", namespace, "--timeout", str(timeout), *cluster],
            out.progress,
            "what is replaced could not be given back",
        )
    out.progress.step("helm", f"removing the traffic-manager from namespace {namespace}")
    arguments = ["uninstall", helm_run.RELEASE, "--wait", "--timeout", f"{timeout}s"]
    arguments += ["--no-hooks"] if no_hooks else []
    helm_run.run([*arguments, *helm_run.kube_arguments(namespace, kubeconfig, kube_context)])
    out.progress.stop()
    out.show(
        {"action": "uninstall", "release": helm_run.RELEASE, "namespace": namespace},
        f"The traffic-manager is gone from namespace {namespace}",
    )


@app.command()
def lint(
    context: typer.Context,
    values: Values = None,
    set_: Set = None,
    set_string: SetString = None,
    set_json: SetJson = None,
    set_file: SetFile = None,
    output: OutputForm = None,
    quiet: Quiet = False,
) -> None:
    """Check values against the embedded chart; needs no cluster."""
    out = begin(context, output, quiet)
    text = helm_run.run(
        ["lint", str(helm_run.chart()), "--strict", *_values(values, set_, set_string, set_json, set_file)]
    )
    out.show({"action": "lint", "ok": True, "text": text}, text.rstrip())
