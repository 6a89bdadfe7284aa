"""`tpctl helm install|upgrade|uninstall|lint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli import helm as helm_run
from cli.errors import CommandError
from cli.helm import Target
from cli.options import KubeContext, OutputForm, Quiet, begin
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


def _wait(out: Output, target: Target, timeout: int) -> None:
    again = "tpctl helm upgrade" + ("" if target.namespace == helm_run.NAMESPACE else f" -n {target.namespace}")
    arguments = ["--namespace", target.namespace, "--timeout", str(timeout), *target.for_ours()]
    try:
        helm_run.spawn("tpd.session.rollout", arguments, out.progress, "it did not become ready")
    except CommandError as error:
        raise CommandError(f"the traffic-manager is installed, but {error}; mend that, then run: {again}") from None


def _show(out: Output, target: Target, action: str, text: str, *, ready: bool, hint: str = "") -> None:
    out.progress.stop()
    out.show(
        {"action": action, "release": helm_run.RELEASE, "namespace": target.namespace, "ready": ready},
        text + (" and ready" if ready else "") + hint,
    )


@app.command()
def install(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = "",
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
    out, target = begin(context, output, quiet), Target(namespace, kubeconfig, kube_context)
    arguments = ["install", helm_run.RELEASE, str(helm_run.chart())]
    arguments += target.for_helm()
    arguments += ["--create-namespace"] if create_namespace else []
    arguments += ["--no-hooks"] if no_hooks else []
    arguments += _values(values, set_, set_string, set_json, set_file)
    out.progress.step("helm", f"installing the traffic-manager in namespace {namespace}")
    helm_run.run(arguments, out.progress)
    if wait:
        _wait(out, target, timeout)
    text = f"The traffic-manager is installed in namespace {namespace}"
    _show(out, target, "install", text, ready=wait, hint="; run: tpctl connect")


@app.command()
def upgrade(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = "",
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
    out, target = begin(context, output, quiet), Target(namespace, kubeconfig, kube_context)
    arguments = ["upgrade", helm_run.RELEASE, str(helm_run.chart())]
    arguments += target.for_helm()
    arguments += ["--reuse-values"] if reuse_values else []
    arguments += ["--reset-values"] if reset_values else []
    arguments += ["--no-hooks"] if no_hooks else []
    arguments += _values(values, set_, set_string, set_json, set_file)
    out.progress.step("helm", f"upgrading the traffic-manager in namespace {namespace}")
    helm_run.run(["status", helm_run.RELEASE, *target.for_helm()], out.progress)
    definitions = [str(path) for path in sorted((helm_run.chart() / "crds").glob("*.yaml"))]
    # Helm never touches the definitions of an existing release (helm.sh/docs/topics/charts, "Limitations on CRDs").
    helm_run.spawn(
        "tpd.session.apply",
        [*target.for_ours(), *definitions],
        out.progress,
        "the custom resource definitions cannot be applied",
    )
    out.progress.step("helm", f"upgrading the traffic-manager in namespace {namespace}")
    helm_run.run(arguments, out.progress)
    if wait:
        _wait(out, target, timeout)
    _show(out, target, "upgrade", f"The traffic-manager in namespace {namespace} is upgraded", ready=wait)


@app.command()
def uninstall(
    context: typer.Context,
    namespace: Namespace = helm_run.NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kube_context: KubeContext = "",
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
    out, target = begin(context, output, quiet), Target(namespace, kubeconfig, kube_context)
    out.progress.step("helm", f"looking at the traffic-manager in namespace {namespace}")
    helm_run.run(["status", helm_run.RELEASE, *target.for_helm()], out.progress)
    if release:
        helm_run.spawn(
            "tpd.session.release",
            ["--namespace", namespace, "--timeout", str(timeout), *target.for_ours()],
            out.progress,
            "what is replaced could not be given back",
        )
    out.progress.step("helm", f"removing the traffic-manager from namespace {namespace}")
    arguments = ["uninstall", helm_run.RELEASE, "--wait", "--timeout", f"{timeout}s"]
    arguments += ["--no-hooks"] if no_hooks else []
    helm_run.run([*arguments, *target.for_helm()], out.progress)
    _show(out, target, "uninstall", f"The traffic-manager is gone from namespace {namespace}", ready=False)


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
    out.progress.step("helm", "checking the values")
    given = _values(values, set_, set_string, set_json, set_file)
    text = helm_run.run(["lint", str(helm_run.chart()), "--strict", *given], out.progress)
    out.progress.stop()
    out.show({"action": "lint", "ok": True, "text": text}, text.rstrip())
