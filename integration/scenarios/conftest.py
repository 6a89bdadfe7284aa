"""What every scenario begins with: an installed traffic-manager, and laptops whose daemon runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.commands import run
from integration.cluster.laptop import Laptop
from integration.cluster.places import REPOSITORY
from integration.conftest import LaptopFactory
from integration.scenarios import workloads
from integration.scenarios.apps import Apps
from integration.scenarios.user import User

MANAGER_NAMESPACE = "tpctl-system"
RELEASE = "traffic-manager"


@pytest.fixture(scope="session")
def manager(cluster: Cluster) -> str:
    """The namespace of a ready traffic-manager; installed, or upgraded to the chart of this tree."""
    repository, _, tag = cluster.image("manager").rpartition(":")
    agent = cluster.image("agent").rpartition(":")[0]
    run(
        [
            *(Path(sys.prefix) / "bin" / "helm", "upgrade", "--install", RELEASE, REPOSITORY / "helm" / "tpctl"),
            *(f"--namespace={MANAGER_NAMESPACE}", "--create-namespace", "--wait", "--timeout=90s"),
            *("--set", f"image.name={repository}", "--set", f"image.tag={tag}"),
            *("--set", f"agent.image.name={agent}", "--set", f"agent.image.tag={tag}"),
            f"--kubeconfig={cluster.admin_kubeconfig}",
        ],
        timeout=120,
    )
    return MANAGER_NAMESPACE


@pytest.fixture
def apps(cluster: Cluster, namespace: str) -> Apps:
    """What runs in the test's namespace."""
    return Apps(cluster, namespace)


DEMO = "demo"
UserFactory = Callable[..., User]


@pytest.fixture(scope="session")
def demo(cluster: Cluster, manager: str) -> Iterator[str]:
    """A namespace with the echo service, which tests only read; it stays for the whole run."""
    if not cluster.kubectl("get", "namespace", DEMO, "--ignore-not-found").strip():
        cluster.kubectl("create", "namespace", DEMO)
    workloads.apply(cluster, DEMO, workloads.echo(cluster.image("test")))
    yield DEMO
    cluster.kubectl("delete", "namespace", DEMO)


@pytest.fixture(scope="module")
def person(cluster: Cluster, demo: str) -> Iterator[User]:
    """The cluster's administrator at a laptop that is connected to the demo namespace, shared by a file's tests."""
    laptop = Laptop.create(cluster, "person")
    try:
        user = User(laptop)
        user.connect(demo)
        yield user
    finally:
        laptop.delete()


@pytest.fixture
def people(manager: str, laptop: LaptopFactory) -> UserFactory:
    """A factory of users, each at a fresh laptop (arguments as for `laptop`); not connected yet."""
    return lambda **options: User(laptop(**options))
