"""What every scenario begins with: an installed traffic-manager, and laptops whose daemon runs."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.commands import run
from integration.cluster.external import ExternalCluster
from integration.cluster.laptop import Laptop
from integration.cluster.places import REPOSITORY
from integration.conftest import LaptopFactory
from integration.scenarios import workloads
from integration.scenarios.apps import Apps
from integration.scenarios.user import User

MANAGER_NAMESPACE = "tpctl-system"
RELEASE = "traffic-manager"
CAME_WITH_IT = (
    *(f"customresourcedefinition/{name}.tpctl.io" for name in ("engagements", "sessions")),
    f"namespace/{MANAGER_NAMESPACE}",
)
"""What Helm makes and does not take away."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The time limit of a test includes its fixtures, and the first one pays for the traffic-manager."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(180))


def settings(cluster: Cluster, **values: object) -> list[str]:
    """Helm's arguments for the images of this tree and these values of the chart.

    An image that is new under its old name makes a new pod of the manager, because its digest is in an annotation.
    """
    repository, _, tag = cluster.image("manager").rpartition(":")
    agent = cluster.image("agent").rpartition(":")[0]
    images = {"image.name": repository, "image.tag": tag, "agent.image.name": agent, "agent.image.tag": tag}
    digest = cluster.digest("manager")
    return [
        *(f"--set={key}={value}" for key, value in {**images, **values}.items()),
        *([f"--set-string=podAnnotations.image={digest}"] if digest else []),
    ]


def install(cluster: Cluster, **values: object) -> None:
    """Install the traffic-manager, or make it that of this tree, with these values of the chart; wait until ready."""
    chart = str(REPOSITORY / "helm" / "tpctl")
    helm(
        cluster,
        *("upgrade", "--install", RELEASE, chart, "--create-namespace", "--wait", "--timeout=90s"),
        *settings(cluster, **values),
    )


def helm(cluster: Cluster, *words: str) -> None:
    """Run Helm in the manager's namespace as the cluster's administrator."""
    where = (f"--namespace={MANAGER_NAMESPACE}", f"--kubeconfig={cluster.admin_kubeconfig}")
    run([Path(sys.prefix) / "bin" / "helm", *words, *where], timeout=120)


@pytest.fixture(scope="session")
def manager(cluster: Cluster) -> Iterator[str]:
    """The namespace of a ready traffic-manager; installed, or upgraded to the chart of this tree.

    The local cluster keeps it for the next run. On another cluster it goes with everything that came with it.
    """
    if not isinstance(cluster, ExternalCluster):
        install(cluster)
        yield MANAGER_NAMESPACE
        return
    there = {each for each in CAME_WITH_IT if cluster.kubectl("get", each, "--ignore-not-found", "-o", "name")}
    try:
        install(cluster)
        yield MANAGER_NAMESPACE
    finally:
        helm(cluster, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=60s")
        for each in CAME_WITH_IT:
            if each not in there:
                cluster.kubectl("delete", each, "--ignore-not-found", "--timeout=60s")


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


UserFactory = Callable[..., User]


@pytest.fixture(scope="session")
def demo(cluster: Cluster, manager: str) -> Iterator[str]:
    """A namespace with the echo service, which tests only read; it stays for the whole run."""
    name = f"demo-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", name)
    try:
        workloads.apply(cluster, name, workloads.echo(cluster.image("test")))
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def person(cluster: Cluster, demo: str) -> Iterator[User]:
    """The cluster's administrator at a laptop that is connected to the demo namespace, shared by a file's tests."""
    laptop = Laptop.create(cluster, "person", anew=True)
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
