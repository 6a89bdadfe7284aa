"""What becomes of a container's environment."""

from __future__ import annotations

import json

import pytest

from cli.environment import env_file, env_json, for_handler, is_unsafe
from cli.errors import CommandError


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "BASH_ENV",
        "ENV",
        "PYTHONPATH",
        "PYTHONHOME",
        "NODE_OPTIONS",
        "PATH",
        "GIT_SSH_COMMAND",
        "PERL5OPT",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "PROMPT_COMMAND",
        "BASH_FUNC_ls%%",
        "OPENSSL_CONF",
        "LUA_INIT_5_4",
        "ERL_AFLAGS",
        "MAKEFLAGS",
        "GTK_MODULES",
        "QT_PLUGIN_PATH",
        "GOFLAGS",
        "MAVEN_OPTS",
    ],
)
def test_unsafe(name: str) -> None:
    assert is_unsafe(name)
    environment, left_out = for_handler({name: "mine"}, {name: "theirs", "OK": "1"}, allow_unsafe=False)
    assert environment == {name: "mine", "OK": "1"}
    assert left_out == [name]
    environment, left_out = for_handler({name: "mine"}, {name: "theirs"}, allow_unsafe=True)
    assert environment == {name: "theirs"}
    assert left_out == []


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "GIT_COMMIT", "OLD_LD", "MY_PATH", "ENVIRONMENT", "JAVA_HOME", "RUST_LOG", "QT_DEBUG"]
)
def test_safe(name: str) -> None:
    assert not is_unsafe(name)


def test_what_no_process_can_have_is_left_out() -> None:
    assert for_handler({}, {"": "x", "A=B": "x", "NUL": "a\0b", "OK": ""}, allow_unsafe=True)[0] == {"OK": ""}


def test_env_file_takes_values_as_they_are() -> None:
    assert env_file({"B": 'with "quotes" and $dollar #hash', "A": "", "spring.profile": "x"}) == (
        'A=\nB=with "quotes" and $dollar #hash\nspring.profile=x\n'
    )


@pytest.mark.parametrize("variables", [{"CERT": "a\nb"}, {"CR": "a\rb"}, {"A B": "x"}, {"#A": "x"}])
def test_env_file_refuses_what_it_cannot_hold(variables: dict[str, str]) -> None:
    with pytest.raises(CommandError, match="--env-json"):
        env_file(variables)


def test_env_json_is_complete() -> None:
    variables = {"CERT": "a\nb", "A B": "x", "U": "ü"}
    assert json.loads(env_json(variables)) == variables
