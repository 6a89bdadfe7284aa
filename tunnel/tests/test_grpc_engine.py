"""The choice is made before gRPC is imported, in every process that speaks it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunnel.grpc_engine import CHOICE, VARIABLE

SCRIPT = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get({variable!r}))
sys.meta_path.insert(0, Watch())
import {module}
import grpc
"""


@pytest.mark.parametrize("module", ["manager.main", "agent.main", "tpd.session.main", "tunnel.aio.grpc_stream"])
def test_every_process_chooses_in_time(module: str) -> None:
    script = SCRIPT.format(variable=VARIABLE, module=module)
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=50
    )
    assert done.stdout.splitlines()[:1] == [CHOICE], done.stderr


def test_grpc_knows_the_names() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tunnel.aio, grpc; grpc.insecure_channel('localhost:1').close()"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0
    assert "Unknown experiment" not in done.stderr
