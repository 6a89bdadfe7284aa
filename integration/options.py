"""Options of pytest, a plugin of its own so that they are known whichever tests are named (see addopts)."""

from pathlib import Path

import pytest

from integration.cluster.places import DEFAULT_NAME


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster", "the cluster that the tests use")
    group.addoption(
        "--cluster-name", default=DEFAULT_NAME, help="the local cluster of this name (default: %(default)s)"
    )
    group.addoption("--kubeconfig", type=Path, help="instead of the local cluster, the one of this kubeconfig")
    group.addoption("--context", help="instead of the local cluster, the one of this context")
    group.addoption("--image-prefix", help="where another cluster pulls manager, agent and test images from")
