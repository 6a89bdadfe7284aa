"""Credential plugins, run for real: what they give, and one clear sentence when they give nothing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
import uvloop

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.exec_plugin import ExecPlugin, cluster_info, plugin_of, run
from tunnel.kube.grant import Grant

VERSION = "client.authentication.k8s.io/v1"
ENVIRONMENT = dict(os.environ)


def plugin(*command: str, **more: object) -> ExecPlugin:
    entry = {"apiVersion": VERSION, "command": command[0], "args": list(command[1:]), **more}
    return plugin_of(entry, Path("/"), {"server": "https://api"})


def ask(*command: str, limit: float = 10, **more: object) -> Grant:
    return asyncio.run(run(plugin(*command, **more), ENVIRONMENT, limit))


def answer(version: str = VERSION, **status: str) -> str:
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})


def test_a_token_and_its_end() -> None:
    assert ask("echo", answer(token="secret")).token == "secret"
    found = ask("echo", answer(token="secret", expirationTimestamp="2031-01-02T03:04:05Z"))
    assert found.expires == 1925089445


def test_a_certificate() -> None:
    found = ask("echo", answer(clientCertificateData="certificate", clientKeyData="key\n"))
    assert (found.token, found.certificate, found.key, found.expires) == (None, b"certificate", b"key", None)


def test_in_the_workers_loop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run(plugin("echo", answer(token="secret")), ENVIRONMENT, 10)).token == "secret"


def test_what_the_program_is_told() -> None:
    script = 'printf \'%s\' "$KUBERNETES_EXEC_INFO" "$SETTING" >&2; exit 1'
    with pytest.raises(KubeconfigError) as told:
        ask("sh", "-c", script, env=[{"name": "SETTING", "value": "set"}], provideClusterInfo=True)
    cluster = '"cluster": {"server": "https://api"}'
    assert f'"kind": "ExecCredential", "spec": {{"interactive": false, {cluster}}}}}set)' in str(told.value)
    with pytest.raises(KubeconfigError) as told:
        ask("sh", "-c", script)
    assert '"spec": {"interactive": false}}' in str(told.value)


def test_what_a_cluster_is() -> None:
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "here"}}
    entry = {"server": "https://api", "certificate-authority": "/file", "extensions": [{"name": "x"}, extension]}
    assert cluster_info(entry, "Y2E=") == {
        "server": "https://api",
        "certificate-authority-data": "Y2E=",
        "config": {"audience": "here"},
    }


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["sh", "-c", "echo please log in >&2; exit 3"], r"it ended with status 3 \(please log in\); try it with"),
        (["sh", "-c", "exit 1"], "it ended with status 1; try it with"),
        (["nosuchplugin"], r"cannot run 'nosuchplugin': No such file or directory \(get it at example.org\)"),
        (["echo", "hello"], "what it says is not JSON"),
        (["echo", "{}"], "what it says is no ExecCredential of"),
        (["echo", answer()], "it gives neither a token nor a certificate"),
        (
            ["echo", answer(version=f"{VERSION}beta1", token="t")],
            "no ExecCredential of client.authentication.k8s.io/v1",
        ),
        (["echo", answer(clientKeyData="key")], "a certificate without its key"),
        (["echo", answer(token="a\nb")], "line breaks"),
        (["echo", answer(token="t", expirationTimestamp="soon")], "its expirationTimestamp is no time"),
    ],
)
def test_a_plugin_that_fails(command: list[str], sentence: str) -> None:
    with pytest.raises(KubeconfigError, match=sentence):
        ask(*command, installHint="get it\n at example.org")


def test_a_plugin_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(KubeconfigError, match="'sh' gave nothing within 0 s"):
        ask("sh", "-c", f"sleep 30 & echo $! > {pid}; wait", limit=0.3)
    assert time.monotonic() - started < 5
    assert _gone(int(pid.read_text()))


def _gone(pid: int) -> bool:
    """Whether that process has ended, or waits only for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True
