"""Which server, who, and one clear sentence for everything that is wrong with a kubeconfig."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
import yaml

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.kubeconfig import load, paths_from

EXEC = "client.authentication.k8s.io/v1"


def write(path: Path, **document: object) -> Path:
    path.write_text(yaml.safe_dump(document))
    return path


def one_context(folder: Path, name: str = "dev", **user: object) -> Path:
    return write(
        folder / f"{name}.yaml",
        **{
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "shop"}}],
            "clusters": [{"name": name, "cluster": {"server": "https://api:6443/"}}],
            "users": [{"name": name, "user": user}],
        },
    )


def test_the_current_context_is_used(tmp_path: Path) -> None:
    found = load([one_context(tmp_path, token="secret")])
    assert (found.context, found.namespace, found.server, found.token) == ("dev", "shop", "https://api:6443", "secret")


def test_data_wins_over_files_and_files_are_relative_to_their_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"key")
    data = base64.b64encode(b"certificate").decode()
    found = load([one_context(tmp_path, **{"client-certificate-data": data, "client-key": "key.pem"})])
    assert (found.certificate, found.key) == (b"certificate", b"key")


def test_of_several_files_the_first_that_defines_a_name_wins(tmp_path: Path) -> None:
    first = one_context(tmp_path, "first", token="one")
    second = one_context(tmp_path, "second", token="two")
    assert load([first, second]).token == "one"
    assert load([first, second], "second").token == "two"


def test_users_of_plugins_are_recognised(tmp_path: Path) -> None:
    entry = {"command": "bin/aws", "apiVersion": "client.authentication.k8s.io/v1", "args": ["token"]}
    plugin = load([one_context(tmp_path, exec=entry)]).exec_plugin
    assert plugin is not None
    assert (plugin.command, plugin.arguments, plugin.cluster) == (str(tmp_path / "bin/aws"), ("token",), None)
    assert load([one_context(tmp_path, exec=entry, token="static")]).exec_plugin is None


@pytest.mark.parametrize(
    ("context", "sentence"),
    [("prod", "has no context 'prod'; it has dev"), ("", None)],
)
def test_an_unknown_context_is_named_with_those_there_are(tmp_path: Path, context: str, sentence: str | None) -> None:
    path = one_context(tmp_path)
    if sentence is None:
        assert load([path], context).context == "dev"
        return
    with pytest.raises(KubeconfigError, match=sentence):
        load([path], context)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="--kubeconfig"):
        load([tmp_path / "nothing"])


@pytest.mark.parametrize(
    "text", ["{", "- a list", "current-context: x", "contexts: 5", "users: [5]", "clusters: [{name: a, cluster: b}]"]
)
def test_malformed_files_are_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeconfigError):
        load([path])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"users": []}, "names the user 'dev', who is not there"),
        ({"clusters": []}, "names the cluster 'dev', which is not there"),
        ({"clusters": [{"name": "dev", "cluster": {"server": "api:6443"}}]}, "is not a URL"),
        ({"clusters": [{"name": "dev"}]}, "has no server address"),
    ],
)
def test_what_a_context_lacks_is_named(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    path = one_context(tmp_path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(KubeconfigError, match=sentence):
        load([path])


@pytest.mark.parametrize(
    ("entry", "change", "sentence"),
    [
        ("cluster", {"server": "https://api:99999"}, "is not a URL"),
        ("cluster", {"server": "https://[::1"}, "is not a URL"),
        ("cluster", {"server": "https://"}, "is not a URL"),
        ("cluster", {"server": 5}, "'server' in the kubeconfig is not a text"),
        ("cluster", {"certificate-authority-data": 5}, "certificate-authority-data in the kubeconfig is not base64"),
        ("cluster", {"certificate-authority": ["a"]}, "'certificate-authority' in the kubeconfig is not a text"),
        ("cluster", {"tls-server-name": 5}, "'tls-server-name' in the kubeconfig is not a text"),
        ("user", {"tokenFile": 5}, "'tokenFile' in the kubeconfig is not a text"),
        ("user", {"token": 12345}, "'token' in the kubeconfig is not a text; put it into quotes"),
        ("user", {"token": "a\nb"}, "'token' in the kubeconfig has line breaks"),
        ("user", {"exec": "aws"}, "'exec' in the kubeconfig is not a mapping"),
        ("user", {"exec": {"command": "aws", "apiVersion": "v1"}}, "has the apiVersion v1, not"),
        ("user", {"exec": {"apiVersion": EXEC}}, "has no command"),
        ("user", {"exec": {"apiVersion": EXEC, "command": "a", "args": [5]}}, "'args' in the kubeconfig is not a list"),
        ("user", {"exec": {"apiVersion": EXEC, "command": "a", "env": ["A=B"]}}, "'env' of the kubeconfig's"),
        ("user", {"exec": {"apiVersion": EXEC, "command": "a", "interactiveMode": "Always"}}, "wants a terminal"),
        ("user", {"as-groups": ["admins"]}, "but nobody in 'as'"),
        ("user", {"as": "bob", "as-groups": "admins"}, "'as-groups' in the kubeconfig is not a list of texts"),
        ("user", {"as": "bob", "as-groups": ["a\nb"]}, "has line breaks"),
    ],
)
def test_fields_of_another_kind_are_named(tmp_path: Path, entry: str, change: dict[str, object], sentence: str) -> None:
    path = one_context(tmp_path)
    document = yaml.safe_load(path.read_text())
    document[f"{entry}s"][0][entry] |= change
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(KubeconfigError, match=re.escape(sentence)):
        load([path])


def test_whom_the_server_shall_take_us_for(tmp_path: Path) -> None:
    assert load([one_context(tmp_path, token="t")]).impersonation == ()
    extra = {"reason.example/Why not": ["a", "b"]}
    user: dict[str, object] = {"as": "bob", "as-uid": "7", "as-groups": ["dev", "ops"], "as-user-extra": extra}
    assert load([one_context(tmp_path, "dev", **user)]).impersonation == (
        ("Impersonate-User", "bob"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-reason.example%2FWhy%20not", "a"),
        ("Impersonate-Extra-reason.example%2FWhy%20not", "b"),
    )


def test_where_kubeconfigs_are_looked_for() -> None:
    assert paths_from({"KUBECONFIG": "/a:/b", "HOME": "/home/x"}) == [Path("/a"), Path("/b")]
    assert paths_from({"HOME": "/home/x"}) == [Path("/home/x/.kube/config")]
    assert paths_from({"KUBECONFIG": "/a"}, ["/c"]) == [Path("/c")]
