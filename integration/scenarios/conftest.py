"""What every scenario begins with: an installed traffic-manager, and laptops whose daemon runs."""

from __future__ import annotations

import secrets
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


def settings(cluster: Cluster, **values: object) -> list[str]:
    """Helm's arguments for the images of this tree and these values of the chart."""
    repository, _, tag = cluster.image("manager").rpartition(":")
    agent = cluster.image("agent").rpartition(":")[0]
    images = {"image.name": repository, "image.tag": tag, "agent.image.name": agent, "agent.image.tag": tag}
    return [f"--set={key}={value}" for key, value in {**images, **values}.items()]


def install(cluster: Cluster, **values: object) -> None:
    """Install the traffic-manager, or make it that of this tree, with these values of the chart; wait until ready."""
    run(
        [
            *(Path(sys.prefix) / "bin" / "helm", "upgrade", "--install", RELEASE, REPOSITORY / "helm" / "tpctl"),
            *(f"--namespace={MANAGER_NAMESPACE}", "--create-namespace", "--wait", "--timeout=90s"),
            *(*settings(cluster, **values), f"--kubeconfig={cluster.admin_kubeconfig}"),
        ],
        timeout=120,
    )


@pytest.fixture(scope="session")
def manager(cluster: Cluster) -> str:
    """The namespace of a ready traffic-manager; installed, or upgraded to the chart of this tree."""
    install(cluster)
    return MANAGER_NAMESPACE


@pytest.fixture
def apps(cluster: Cluster, namespace: str) -> Apps:
    """What runs in the test's namespace."""
    return Apps(cluster, namespace)


@pytest.fixture(scope="module")
def shared_apps(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Apps]:
    """What runs in a namespace that a file's tests share."""
    name = f"{request.module.__name__.rpartition('_')[2]}-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", name)
    yield Apps(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


DEMO = "demo"
UserFactory = Callable[..., User]


@pytest.fixture(scope="session")
def demo(cluster: Cluster, manager: str) -> Iterator[str]:
    """A namespace with the echo service, which tests only read; it stays for the whole run."""
    phase = cluster.kubectl("get", "namespace", DEMO, "--ignore-not-found", "-o", "jsonpath={.status.phase}")
    if phase == "Terminating":  # an earlier run's
        cluster.kubectl("wait", "--for=delete", f"namespace/{DEMO}", "--timeout=60s")
    if phase != "Active":
        cluster.kubectl("create", "namespace", DEMO)
    workloads.apply(cluster, DEMO, workloads.echo(cluster.image("test")))
    yield DEMO
    cluster.kubectl("delete", "namespace", DEMO, "--wait=false")


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
