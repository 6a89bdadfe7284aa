"""Which single labels end names outside the cluster: a namespace of that name must not capture them.

`tlds.txt` is the list of public top-level domains (the root zone as the Public Suffix List of 2026-10 has it).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_USED_PRIVATELY = frozenset(
    ("alt", "arpa", "corp", "home", "internal", "intranet", "invalid", "lan", "local", "localhost", "onion", "private")
)
"""Not in the root zone, but names below them mean something on laptops (RFC 6761, RFC 6762, RFC 8375, habit)."""


@cache
def _public() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("tlds.txt").read_text(encoding="ascii").split())


def is_taken(label: str) -> bool:
    """Whether names that end in `label` (lower case) may have a meaning outside the cluster."""
    return label in _USED_PRIVATELY or label in _public()
