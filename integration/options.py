"""Options of pytest, a plugin of its own so that they are known whichever tests are named (see addopts)."""

import signal
from pathlib import Path
from types import FrameType

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


def pytest_configure() -> None:
    """A run that is told to end takes away what it made, as one that is interrupted does."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
