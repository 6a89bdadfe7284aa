"""Credential plugins, run for real: what they give, and one clear sentence when they give nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.plugin import CredentialPlugin

VERSION = "client.authentication.k8s.io/v1"


def plugin(folder: Path, *command: str) -> CredentialPlugin:
    """The adapter of a kubeconfig whose user is this program."""
    path = folder / "config"
    who = {"exec": {"apiVersion": VERSION, "command": command[0], "args": list(command[1:])}}
    document = {
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "dev"}}],
        "clusters": [{"name": "dev", "cluster": {"server": "https://api:6443"}}],
        "users": [{"name": "dev", "user": who}],
    }
    path.write_text(yaml.safe_dump(document))
    return CredentialPlugin([path], "dev")


def answer(**status: str) -> str:
    return json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})


def test_a_token(tmp_path: Path) -> None:
    assert asyncio.run(plugin(tmp_path, "echo", answer(token="secret")).load()) == ("secret", None, None)


def test_a_certificate(tmp_path: Path) -> None:
    found = plugin(tmp_path, "echo", answer(clientCertificateData="certificate", clientKeyData="key"))
    assert asyncio.run(found.load()) == (None, b"certificate", b"key")


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["sh", "-c", "echo please log in >&2; exit 3"], r"it ended with status 3 \(please log in\); try it with"),
        (["sh", "-c", "exit 1"], "it ended with status 1; try it with"),
        (["nosuchplugin"], "No such file or directory: 'nosuchplugin'"),
        (["echo", "hello"], "failed to decode process output"),
        (["echo", answer()], "missing token or clientCertificateData"),
    ],
)
def test_a_plugin_that_fails(tmp_path: Path, command: list[str], sentence: str) -> None:
    with pytest.raises(KubeconfigError, match=sentence):
        asyncio.run(plugin(tmp_path, *command).load())
