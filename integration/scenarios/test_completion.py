"""What the shell offers behind the Tab key, from a real cluster."""

from __future__ import annotations

import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.conftest import UserFactory
from integration.scenarios.user import User

pytestmark = pytest.mark.cluster


def complete(user: User, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    line = {"COMP_WORDS": " ".join(["tpctl", *words]), "COMP_CWORD": str(len(words))}
    return user.ok("tpctl", env={**line, "_TPCTL_COMPLETE": "complete_bash"}).split()


def test_contexts_namespaces_workloads_and_containers(cluster: Cluster, people: UserFactory, demo: str) -> None:
    user = people()
    assert complete(user, "connect", "--context", "") == [user.context]
    assert {"default", demo} <= set(complete(user, "connect", "-n", "de"))  # the cluster is asked, without a daemon
    user.connect("default")
    assert complete(user, "replace", "e") == []
    assert {"default", demo} <= set(complete(user, "list", "-n", "de"))
    assert complete(user, "replace", "-n", demo, "e") == ["echo"]
    assert complete(user, "replace", "-n", demo, "echo", "--container", "") == ["echo"]
    user.tpctl("quit")
