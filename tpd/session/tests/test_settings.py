"""Resolved settings and how two connections differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tpd.session.settings import difference, environment_of, kubeconfigs, resolve
from tunnel.kube.kubeconfig import Credentials, load
from tunnel.proto import daemon_pb2

KIND = Credentials("kind", "default", "https://api", user="admin")


def test_defaults_and_differences() -> None:
    plain = resolve(daemon_pb2.Connect(), KIND)
    assert plain.name == "kind-default"
    strange = resolve(daemon_pb2.Connect(), Credentials("my ü\n(1)", "default", "https://api", user="admin"))
    assert strange.name == "my----1--default"
    assert difference(plain, plain) == ""
    other = resolve(daemon_pb2.Connect(namespace="shop", name="kind-default"), KIND)
    assert "namespace default, not shop" in difference(plain, other)
    assert "tpctl quit" in difference(plain, other)
    twice, once = (daemon_pb2.Connect(mapped_namespaces=names) for names in (["b", "a", "b"], ["a", "b"]))
    assert resolve(twice, KIND) == resolve(once, KIND)


def test_another_user_of_the_same_cluster_is_another_connection() -> None:
    admin = resolve(daemon_pb2.Connect(), KIND)
    viewer = resolve(daemon_pb2.Connect(), Credentials("kind", "default", "https://api", user="viewer"))
    assert "kubeconfig user admin, not viewer" in difference(admin, viewer)


FIRST = {"HOME": "/home/ann", "KUBECONFIG": "/first", "PATH": "/bin"}


def test_each_caller_means_the_kubeconfig_of_its_own_environment() -> None:
    request = daemon_pb2.Connect(environment={"KUBECONFIG": "here.yaml:/second"}, working_directory="/work")
    assert kubeconfigs(request, environment_of(request, FIRST)) == ["/work/here.yaml", "/second"]
    request = daemon_pb2.Connect(environment={"PATH": "/bin"}, working_directory="/work")
    assert kubeconfigs(request, environment_of(request, FIRST)) == ["/home/ann/.kube/config"]
    request = daemon_pb2.Connect(
        environment={"KUBECONFIG": "/second"}, kubeconfig=["named.yaml"], working_directory="/work"
    )
    assert kubeconfigs(request, environment_of(request, FIRST)) == ["/work/named.yaml"]


def test_whoever_sends_no_environment_has_that_of_the_worker() -> None:
    assert environment_of(daemon_pb2.Connect(), FIRST) == FIRST


@pytest.mark.parametrize("user", ["ann", ""])
def test_the_user_is_the_contexts(user: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": user}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://api"}}],
        "users": [{"name": "ann", "user": {}}],
    }
    file.write_text(json.dumps(document))
    assert load([file]).user == user
