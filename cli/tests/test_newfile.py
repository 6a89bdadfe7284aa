"""Files with secrets in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.newfile import NewFile


def test_it_is_written_in_one_step_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_text("old")
    path.chmod(0o644)
    with NewFile(path) as file:
        (aside,) = set(tmp_path.iterdir()) - {path}
        assert aside.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == "old"
        file.write("secret")
        assert path.read_text() == "secret"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_leaves_nothing_when_it_is_not_written(tmp_path: Path) -> None:
    with NewFile(tmp_path / "e"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nobody_knows_beforehand_where_the_secrets_go(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with NewFile(tmp_path / "e"):
            names += [path.name for path in tmp_path.iterdir()]
    assert len(set(names)) == 2


def test_a_device_takes_it_too() -> None:
    with NewFile(Path("/dev/null")) as file:
        file.write("x")


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "e", tmp_path):
        with pytest.raises(CommandError, match=r"^cannot write .*: [a-z ]+$"):
            NewFile(path)
