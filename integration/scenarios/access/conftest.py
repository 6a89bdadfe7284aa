"""The stage on which all of these stories play."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.access.stage import Stage, build


@pytest.fixture(scope="package")
def stage(cluster: Cluster, manager: str) -> Iterator[Stage]:
    """Made once for all these files, which leave it as it was."""
    with ExitStack() as stack:
        yield build(cluster, manager, stack)
