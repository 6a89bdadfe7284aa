"""How much the agent may hold for its flows: what the container's memory limit leaves. Beyond it, flows are refused,
because a process that the kernel kills refuses all of them."""

from __future__ import annotations

from pathlib import Path

from tunnel.mux.window import INITIAL, Budget

OWN = 72 << 20
"""What the process takes without flows, bytes."""
FEW = 64
"""Flows that are admitted however small the limit is."""
_V2 = "memory.max"
_V1 = "memory/memory.limit_in_bytes"


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The container's limit in bytes (cgroups(7), version 2 or 1); None when there is none that can be read."""
    for name in (_V2, _V1):
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < 1 << 50 else None  # version 1 says "none" as 2**63 or so
    return None


def budget(limit: int | None) -> Budget:
    """The flows' budget under this limit: a quarter of what is left is for windows that grow."""
    if limit is None:
        return Budget()
    room = max(limit - OWN, 0)
    pool = min(room // 4, 64 << 20)
    return Budget(ceiling=min(max(room, FEW * INITIAL + pool), 512 << 20), pool=pool)
