"""How every program of ours logs: one line a message, with milliseconds; files that never grow beyond a bound."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES = 2_000_000
"""A file's size, after which it is put aside; two that are put aside are kept."""
_KEPT = 2
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


class _File(RotatingFileHandler):
    """Not for everybody, each of the files: at most its group may read it, besides its owner."""

    def __init__(self, path: Path, group: int | None) -> None:
        self._group = group
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=_KEPT, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o640)
        if self._group is not None:
            os.fchown(file.fileno(), -1, self._group)
        return file


def begin(level: str, path: Path | None = None, group: int | None = None) -> None:
    """Log from this level on (its name; INFO where it is none), to a file or to standard error. Raises OSError.

    The file is its owner's, and at most its group may read it: `group`, when that is given.
    """
    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = _File(path, group)
    handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    known = logging.getLevelNamesMapping()
    logging.basicConfig(level=known.get(level.upper(), logging.INFO), handlers=[handler])
