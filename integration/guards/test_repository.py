"""Rules of the tree that no type checker sees."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tunnel.version import VERSION

ROOT = Path(__file__).parents[2]

IMPURE = {"asyncio", "socket", "ssl", "time", "random", "os", "logging", "subprocess", "threading", "secrets"}
PURE_ROOMS = ["tunnel/mux", "tunnel/stack", "manager/state"]
PURE_FILES = ["tunnel/endpoint.py", "tunnel/pieces.py", "tunnel/splice.py"]
LONGEST_FILE = 600


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if "tests" not in path.parts and "_pb2" not in path.name]


def pure_sources() -> list[Path]:
    rooms = [path for path in sources(*PURE_ROOMS) if path.name not in {"bench.py", "__main__.py"}]
    return rooms + [ROOT / path for path in PURE_FILES]


@functools.cache
def modules(path: Path) -> frozenset[str]:
    """Every module that it imports, by its whole name, and every name that it takes from one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def imported(path: Path) -> set[str]:
    """The libraries that it imports itself."""
    return {name.split(".")[0] for name in modules(path)}


def behind(path: Path) -> set[Path]:
    """The project's own files that it imports, and that these import, and so on; and itself."""
    found, new = {path}, [path]
    while new:
        for name in modules(new.pop()):
            folder = ROOT.joinpath(*name.split("."))
            for file in (folder.with_suffix(".py"), folder / "__init__.py"):
                if file.exists() and file not in found:
                    found.add(file)
                    new.append(file)
    return found


@pytest.mark.parametrize("path", pure_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_pure_rooms_take_time_and_randomness_as_arguments(path: Path) -> None:
    impure = {str(each.relative_to(ROOT)): found for each in behind(path) if (found := imported(each) & IMPURE)}
    assert impure == {}


def test_what_is_imported_on_the_way_counts() -> None:
    assert {ROOT / "tunnel/mux/frames.py", ROOT / "tunnel/mux/errors.py"} <= behind(ROOT / "tunnel/mux/registry.py")


def test_no_except_star() -> None:
    """Before Python 3.11.4 what is raised in `except*` comes out in a group of its own."""
    users = [path for path in sources("tpd", "tunnel", "cli", "manager", "agent", "integration") if _has_star(path)]
    assert users == []


def _has_star(path: Path) -> bool:
    return any(isinstance(node, ast.TryStar) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


ONLY_IN = {
    "kubernetes": ("kube",),
    "typer": ("cli",),
    "rich": ("cli",),
    "pyroute2": ("host", "integration"),
}


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_libraries_stay_behind_their_adapters(library: str) -> None:
    rooms = ONLY_IN[library]
    users = [p.relative_to(ROOT) for p in sources("tpd", "tunnel", "cli", "manager", "agent") if library in imported(p)]
    assert [str(p) for p in users if not set(p.parts) & set(rooms)] == []


def test_generated_modules_are_those_of_the_proto_files(tmp_path: Path) -> None:
    generate = ROOT / "tunnel/proto/generate.sh"
    environment = {"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    subprocess.run([generate, tmp_path], check=True, timeout=60, env=environment)
    made = {p.name: p.read_text() for p in (tmp_path / "tunnel/proto").iterdir()}
    kept = {p.name: p.read_text() for p in (ROOT / "tunnel/proto").glob("*_pb2.py*")}
    assert made == kept


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_files_stay_small() -> None:
    every = sources("tpd", "tunnel", "cli", "manager", "agent", "integration", "helm")
    assert [str(p.relative_to(ROOT)) for p in every if len(p.read_text().splitlines()) > LONGEST_FILE] == []
