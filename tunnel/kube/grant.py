"""What proves to the API server who we are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Grant:
    """A proof and how long it is good for. Equal are those that prove the same, whenever they end."""

    token: str | None = None
    basic: str | None = None
    certificate: bytes | None = None
    """PEM, as `key`."""
    key: bytes | None = None
    expires: float | None = field(default=None, compare=False)
    """When to ask for another, in seconds since 1970; None: when the server refuses it."""

    @property
    def authorization(self) -> str | None:
        """The header of that name."""
        if self.token:
            return f"Bearer {self.token}"
        return f"Basic {self.basic}" if self.basic else None
