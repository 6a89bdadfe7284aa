"""Whatever the pages and the sentences of errors tell people to type exists, with these options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.main import application

ROOT = Path(__file__).parents[2]

_CODE = re.compile(r"`tpctl ([^`\n]+)`|^\$ (?:sudo )?tpctl ([^#&\n]+)", re.MULTILINE)
"""In pages: what is marked as code."""
_ADVICE = re.compile(
    r"\b(?:run|with|at|again|choose): tpctl ((?:helm |daemon )?[a-z]+(?: -{1,2}[a-z-]+(?: [A-Z{]\S*)?)*)"
)
"""In the program: what a sentence says to run."""


def _mentioned() -> Iterator[tuple[Path, str]]:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for found in _CODE.finditer(path.read_text(encoding="utf-8")):
            yield path, (found[1] or found[2]).strip()
    for part in ("cli", "tpd", "manager", "agent"):
        for path in (ROOT / part).rglob("*.py"):
            if "tests" not in path.parts:
                text = re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # sentences on several lines
                yield from ((path, found[1]) for found in _ADVICE.finditer(text))


def _check(line: str) -> None:
    """`a|b` are alternatives, brackets say what may be left out, what stands behind -- is the user's own."""
    words = re.sub(r"[][\\]", " ", line.replace("\\|", "|")).split(" -- ")[0].split()
    commands: list[Any] = [typer.main.get_command(application())]
    while words and not words[0].startswith("-") and hasattr(commands[0], "commands"):
        known = commands[0].commands
        names = words.pop(0).split("|")
        assert set(names) <= set(known), f"there is no command {' or '.join(names)}"
        commands = [known[name] for name in names]
    options = {"--help"}
    for command in commands:
        for each in command.params:
            options.update(each.opts, each.secondary_opts)
    named = {word.partition("=")[0] for word in words if word.startswith("-") and word != "--"}
    assert named <= options, f"it has no option {named - options}"


@pytest.mark.parametrize("line", sorted({line for _, line in _mentioned()}))
def test_what_people_are_told_to_type_exists(line: str) -> None:
    _check(line)


@pytest.mark.parametrize("wrong", ["nonsense", "helm nonsense", "connect --nonsense", r"helm install\|nonsense"])
def test_the_check_can_fail(wrong: str) -> None:
    with pytest.raises(AssertionError):
        _check(wrong)


def test_pages_and_sentences_are_found() -> None:
    assert {"README.md", "errors.py", "supervisor.py"} <= {path.name for path, _ in _mentioned()}
