"""Real Helm with the embedded chart, as far as no cluster is needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from cli import helm
from cli.errors import CommandError
from cli.main import run
from cli.progress import Progress


def test_the_chart_and_helm_are_there() -> None:
    assert (helm.chart() / "Chart.yaml").is_file()
    assert (
        subprocess.run([helm.binary(), "version", "--short"], capture_output=True, timeout=20, check=True).stdout[:2]
        == b"v3"
    )


def test_lint(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["helm", "lint", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_lint_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["noSuchValue=1", "image.nome=x", "replicaCount=many"]
    assert run(["helm", "lint", "-o", "json", *(f"--set={value}" for value in wrong)]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == (
        "the chart has no value image.nome; the chart has no value noSuchValue;"
        " the value replicaCount is wrong: invalid type. Expected: integer, given: string"
    )


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Error: INSTALLATION FAILED: cannot re-use a name that is still in use\n", "tpctl helm upgrade"),
        ('Error: UPGRADE FAILED: "traffic-manager" has no deployed releases\n', "tpctl helm install"),
        ("Error: uninstall: Release not loaded: traffic-manager: release: not found\n", "tpctl helm install"),
        (
            "WARNING: kubeconfig is world-readable\nError: Kubernetes cluster unreachable: dial tcp: refused",
            "check the kubeconfig",
        ),
        (
            "Error: INSTALLATION FAILED: execution error at (tpctl/templates/policy.yaml:4:4): there is a"
            " traffic-manager in namespace ops already, and a cluster can have only one",
            "tpctl helm uninstall -n ops",
        ),
        ("Error: something new\n  happened\n", "something new happened"),
        ("", "helm failed without saying why"),
    ],
)
def test_helms_errors_are_sentences(said: str, sentence: str) -> None:
    assert sentence in helm.explain(said)
    assert "\n" not in helm.explain(said)


def test_cluster_arguments() -> None:
    target = helm.Target("ns", Path("/k"), "c")
    assert target.for_helm() == ["--namespace", "ns", "--kubeconfig", "/k", "--kube-context", "c"]
    assert target.for_ours() == ["--kubeconfig", "/k", "--context", "c"]
    assert helm.Target("ns").for_helm() == ["--namespace", "ns"]


def test_an_unreachable_cluster_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none")
    for command in ("install", "upgrade", "uninstall"):
        assert run(["helm", command, "--kubeconfig", missing]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "kubeconfig" in printed.err
        assert "Traceback" not in printed.err


def test_a_spawned_program_that_fails_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="kubeconfig"):
        helm.spawn("tpd.session.apply", ["--kubeconfig", str(tmp_path / "none"), "x"], Progress(quiet=True), "it broke")
    with pytest.raises(CommandError, match="no_such_module"):
        helm.spawn("cli.no_such_module", [], Progress(quiet=True), "it broke")
