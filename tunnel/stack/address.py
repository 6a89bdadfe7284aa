"""Where a flow comes from and where it goes."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple


class Address(NamedTuple):
    """One end of a flow. `host` is an IPv4 or IPv6 address as text, in canonical form."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_text(packed: bytes) -> str:
    """Text form of a packed address of 4 or 16 bytes."""
    if len(packed) == 4:
        return "{}.{}.{}.{}".format(*packed)
    return str(ipaddress.IPv6Address(packed))
