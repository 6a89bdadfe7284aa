"""A file that is written in one step, or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.errors import CommandError


class NewFile:
    """Opened before the work whose result it takes, so that what cannot be written is known before the work begins.

    A context manager: without `write`, leaving it leaves nothing behind. Readable by its owner alone: there may be
    secrets in it. Raises CommandError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside: Path | None = None
        try:
            if path.exists() and not path.is_file():  # a pipe, a device; a folder cannot be opened
                self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            else:
                # A new file under a name that nobody knows: in a folder of several people nobody has put one there.
                self._fd, aside = tempfile.mkstemp(prefix=".tpctl-", dir=path.parent)
                self._aside = Path(aside)
        except OSError as error:
            raise self._failed(error) from None

    def write(self, text: str) -> None:
        """The whole content."""
        try:
            with os.fdopen(os.dup(self._fd), "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
            if self._aside is not None:
                os.replace(self._aside, self._path)
                self._aside = None
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> CommandError:
        return CommandError(f"cannot write {self._path}: {os.strerror(error.errno or 0).lower()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self._aside is not None:
            with suppress(OSError):
                self._aside.unlink()
