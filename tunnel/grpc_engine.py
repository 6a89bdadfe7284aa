"""Which of gRPC's two I/O engines carries the tunnel. gRPC reads the choice when it is imported, hence from packages.

The "event engine" hands every read and write to a pool of threads. For one busy stream in Python that costs: measured
with grpcio 1.85 over a Unix socket, ping-pong 0.27 ms against 0.08 ms, CPU per message 0.18 ms against 0.05 ms,
256 KiB messages 445 MB/s against 647 MB/s. Without it the thread that waits for completions does the I/O.
A release that no longer knows these names says so in its log and goes on.
"""

from __future__ import annotations

import os

VARIABLE = "GRPC_EXPERIMENTS"
CHOICE = "-event_engine_client,-event_engine_listener"


def choose() -> None:
    """Call before the first `import grpc`. Whoever set the variable keeps what they set."""
    os.environ.setdefault(VARIABLE, CHOICE)
