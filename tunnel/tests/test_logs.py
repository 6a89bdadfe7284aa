"""Log files are bounded, and any level is taken."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, sys
from pathlib import Path
from tunnel import logs
logs.FILE_BYTES = 2000
logs.begin(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None, int(sys.argv[3]) if sys.argv[3:] else None)
logging.getLogger("some").debug("detail")
for number in range(200):
    logging.getLogger("some").info("message %d", number)
"""


def test_a_file_is_put_aside_and_only_two_old_ones_are_kept(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM, "info", str(tmp_path / "x.log")], check=True, timeout=20)
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == ["x.log", "x.log.1", "x.log.2"]
    assert all(path.stat().st_size <= 2000 for path in found)
    last = (tmp_path / "x.log").read_text().splitlines()[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} INFO some: message 199", last)


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("info", False), ("nonsense", False)])
def test_levels(level: str, shown: bool) -> None:
    command = [sys.executable, "-c", PROGRAM, level]
    done = subprocess.run(command, check=True, timeout=20, capture_output=True, text=True)
    assert ("detail" in done.stderr) is shown
    assert logging.getLevelName(logging.INFO) in done.stderr


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o640), (0o077, 0o600)])
def test_files_are_not_for_everybody(tmp_path: Path, umask: int, mode: int) -> None:
    (tmp_path / "x.log").touch(mode=0o644)  # of an earlier release
    group = max(os.getgroups(), default=os.getgid())
    command = [sys.executable, "-c", PROGRAM, "info", str(tmp_path / "x.log"), str(group)]
    subprocess.run(command, check=True, timeout=20, umask=umask)
    found = [path.stat() for path in tmp_path.iterdir()]
    assert [(stat.st_mode & 0o777, stat.st_gid) for stat in found] == [(mode, group)] * 3
