"""What was written a moment ago counts, also before the watch has shown it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.kube.informer import Informer, Key, key_of

Object = Mapping[str, Any]


class Fresh:
    """An informer's items, with our own newer writes laid over them."""

    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._written: dict[Key, Object] = {}

    def put(self, item: Object) -> None:
        """This is what the API server answered to a write of ours."""
        self._written[key_of(dict(item))] = item

    def items(self) -> list[Object]:
        """The newest that is known of each object that still exists.

        What is deleted is gone from here at once, also while a finalizer keeps the object itself.
        """
        seen = self._informer.items
        for key, item in list(self._written.items()):
            current = seen.get(key)
            # resourceVersions of one kind of resource grow (KEP-5504); another uid is another object.
            if current is None or _uid(current) != _uid(item) or _number(current) >= _number(item):
                del self._written[key]
        newest = [self._written.get(key, item) for key, item in seen.items()]
        return [item for item in newest if "deletionTimestamp" not in item["metadata"]]


def _uid(item: Object) -> str:
    return str(item["metadata"].get("uid", ""))


def _number(item: Object) -> int:
    version = str(item["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0
