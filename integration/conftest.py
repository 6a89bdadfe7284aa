"""Fixtures of everything that needs a cluster: the cluster itself, laptops, and a namespace for each test."""

import itertools
import re
import secrets
from collections.abc import Iterator
from typing import Protocol

import pytest

from integration.cluster.cluster import Cluster
from integration.cluster.errors import ClusterError
from integration.cluster.external import ExternalCluster
from integration.cluster.laptop import Laptop, ResolverKind

_CLUSTER = pytest.StashKey[Cluster]()
_STARTED_HERE = pytest.StashKey[bool]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Bring the cluster up before the first test, so that no test's time limit pays for it."""
    config = session.config
    if config.option.collectonly or not any(item.get_closest_marker("cluster") for item in session.items):
        return
    config.stash[_STARTED_HERE] = False
    try:
        _find_or_start(config)
    except ClusterError as error:
        raise pytest.UsageError(str(error)) from error


def _find_or_start(config: pytest.Config) -> None:
    if config.option.kubeconfig or config.option.context:
        if not config.option.image_prefix:
            raise ClusterError("Another cluster needs --image-prefix: it cannot have the images built here.")
        external = ExternalCluster.attach(
            config=config.option.kubeconfig, context=config.option.context, image_prefix=config.option.image_prefix
        )
        config.stash[_CLUSTER] = external
        config.stash[_STARTED_HERE] = True
        external.refuse_another_manager()
    else:
        try:
            config.stash[_CLUSTER] = Cluster.find(config.option.cluster_name)
        except ClusterError:
            config.stash[_CLUSTER] = Cluster.up(config.option.cluster_name)
            config.stash[_STARTED_HERE] = True
    config.stash[_CLUSTER].load_project()


@pytest.hookimpl(trylast=True)  # after the fixtures, which an interrupted run ends in this hook too
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A cluster that these tests started ends with them; one that ran before goes on."""
    if session.config.stash.get(_STARTED_HERE, False):
        session.config.stash[_CLUSTER].down()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """The running cluster; tests that use it are marked `cluster`."""
    try:
        return pytestconfig.stash[_CLUSTER]
    except KeyError:
        pytest.fail("A test that uses the cluster must be marked with pytest.mark.cluster.")


@pytest.fixture
def local_cluster(cluster: Cluster) -> Cluster:
    """For tests that know more than any cluster promises: addresses, processes of pods, who the administrator is."""
    if isinstance(cluster, ExternalCluster):
        pytest.skip("only the local cluster's addresses, processes and administrator are known")
    return cluster


class LaptopFactory(Protocol):
    """Makes laptops that end with the test; see `Laptop.create`."""

    def __call__(
        self,
        name: str | None = None,
        *,
        user: str = "admin",
        groups: tuple[str, ...] | None = None,
        rtt: float | None = None,
        resolver: ResolverKind = "file",
        search: tuple[str, ...] = ("corp.example",),
    ) -> Laptop: ...


@pytest.fixture
def laptop(cluster: Cluster) -> Iterator[LaptopFactory]:
    """A factory: `laptop()` is a laptop of the cluster's administrator, `laptop(user="alice")` one of alice."""
    made: list[Laptop] = []
    numbers = itertools.count(1)

    def create(
        name: str | None = None,
        *,
        user: str = "admin",
        groups: tuple[str, ...] | None = None,
        rtt: float | None = None,
        resolver: ResolverKind = "file",
        search: tuple[str, ...] = ("corp.example",),
    ) -> Laptop:
        if groups is None:
            groups = ("system:masters",) if user == "admin" else ()
        chosen = name or f"test{next(numbers)}-{secrets.token_hex(3)}"
        made.append(Laptop.create(cluster, chosen, user=user, groups=groups, rtt=rtt, resolver=resolver, search=search))
        return made[-1]

    yield create
    for each in reversed(made):
        each.delete()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    name = f"t-{words[:40].rstrip('-')}-{secrets.token_hex(2)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
