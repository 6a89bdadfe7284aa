"""How every program of ours logs: one line a message, with milliseconds; files that never grow beyond a bound."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES = 2_000_000
"""A file's size, after which it is put aside; two that are put aside are kept."""
_KEPT = 2
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"


def begin(level: str, path: Path | None = None) -> None:
    """Log from this level on (its name; INFO where it is none), to a file or to standard error. Raises OSError."""
    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S"))
    known = logging.getLevelNamesMapping()
    logging.basicConfig(level=known.get(level.upper(), logging.INFO), handlers=[handler])
