"""A bounded table of facts that are all kept for the same time."""

from __future__ import annotations

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Keys and values, the oldest first; when full, the oldest goes."""

    def __init__(self, kept: float, limit: int) -> None:
        """`kept`: seconds. `limit`: entries."""
        self._kept = kept
        self._limit = limit
        self._entries: dict[bytes, tuple[float, Value]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, key: bytes, value: Value, now: float) -> None:
        """Remember from now on."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (now + self._kept, value)

    def get(self, key: bytes) -> Value | None:
        """What is remembered; it may be a little older than `kept` when `expire` was not called."""
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def forget(self, key: bytes) -> None:
        """Drop one entry, if it is there."""
        self._entries.pop(key, None)

    def next_timeout(self) -> float | None:
        """When `expire` has something to do."""
        return next(iter(self._entries.values()))[0] if self._entries else None

    def expire(self, now: float) -> None:
        """Drop what is over."""
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key][0] > now:
                return
            del self._entries[key]
