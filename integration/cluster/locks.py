"""One command at a time: locks between processes, held by open files, so that a crash releases them."""

import contextlib
import fcntl
from collections.abc import Iterator

from integration.cluster.places import cache_directory


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Wait until no other process holds the lock called `name`."""
    folder = cache_directory() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
