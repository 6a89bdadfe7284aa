"""What becomes of a container's environment on the laptop. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from cli.errors import CommandError

_UNSAFE_PREFIXES = ("LD_", "DYLD_", "PYTHON", "BASH_FUNC_", "GIT_CONFIG", "NPM_CONFIG_", "npm_config_", "CORECLR_")
_UNSAFE = frozenset(
    (
        "BASHOPTS",
        "BASH_ENV",
        "CDPATH",
        "DOTNET_STARTUP_HOOKS",
        "EDITOR",
        "ENV",
        "GCONV_PATH",
        "GIT_ASKPASS",
        "GIT_EDITOR",
        "GIT_EXEC_PATH",
        "GIT_EXTERNAL_DIFF",
        "GIT_PAGER",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GLIBC_TUNABLES",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "LESSOPEN",
        "LOCPATH",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PAGER",
        "PATH",
        "PERL5DB",
        "PERL5LIB",
        "PERL5OPT",
        "PERLLIB",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "PROMPT_COMMAND",
        "PS4",
        "RUBYLIB",
        "RUBYOPT",
        "SHELLOPTS",
        "SSH_ASKPASS",
        "VISUAL",
        "ZDOTDIR",
        "_JAVA_OPTIONS",
    )
)
"""They make programs of the laptop load or run something else. A container's variables come from whoever may write the
workload, and must not decide that on a laptop."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_unsafe(name: str) -> bool:
    """Whether a variable of that name could make a program of the laptop run something else."""
    return name in _UNSAFE or name.startswith(_UNSAFE_PREFIXES)


def for_handler(
    own: Mapping[str, str], container: Mapping[str, str], *, allow_unsafe: bool
) -> tuple[dict[str, str], list[str]]:
    """(the handler's environment: the caller's own, overlaid by the container's; the names left out)."""
    left_out = sorted(name for name in container if not allow_unsafe and is_unsafe(name))
    usable = {
        name: value
        for name, value in container.items()
        if name not in left_out and name and "=" not in name and "\0" not in name + value
    }
    return {**own, **usable}, left_out


def env_file(variables: Mapping[str, str]) -> str:
    """The variables in the syntax of `docker run --env-file`: KEY=VALUE lines, everything after = taken as it is.

    Raises CommandError for what the syntax cannot hold.
    """
    for name, value in variables.items():
        if "\n" in value or "\r" in value:
            raise CommandError(f"--env-file cannot hold {name}, whose value has several lines; use --env-json instead")
        if not _NAME.fullmatch(name.replace(".", "_").replace("-", "_")):
            raise CommandError(f"--env-file cannot hold a variable named {name!r}; use --env-json instead")
    return "".join(f"{name}={variables[name]}\n" for name in sorted(variables))


def env_json(variables: Mapping[str, str]) -> str:
    """All variables as one JSON object."""
    return json.dumps(dict(sorted(variables.items())), indent=2, ensure_ascii=False) + "\n"
