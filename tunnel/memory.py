"""How much manager and agent may hold for their flows: what the container's memory limit leaves. Beyond it, flows are
refused, because a process that the kernel kills refuses all of them."""

from __future__ import annotations

from pathlib import Path

from tunnel.mux.window import Budget

LEAST = 1 << 20
"""Bytes for windows, and for the rest, however small the limit is: 256 flows."""
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


def budget(limit: int | None, own: int) -> Budget:
    """The flows' budget under this limit, of a process that takes `own` bytes without flows: half of what is left for
    windows, of that half for their growth; the other half for what stands in queues and sockets."""
    if limit is None:
        return Budget()
    room = max(limit - own, 0) // 2
    pool = min(room // 2, 64 << 20)
    return Budget(ceiling=min(max(room, LEAST), 512 << 20), pool=pool, buffers=min(max(room, LEAST), 256 << 20))
