"""`$(VAR)` in values, arguments and paths of a pod, by the kubelet's rules.

Source: `env.value` in the Kubernetes API ("Variable references $(VAR_NAME) are expanded … Double $$ are reduced to a
single $ …; if a variable cannot be resolved, the reference in the input string will be unchanged").
"""

from __future__ import annotations

import re
from collections.abc import Callable

# `$$` is an escaped dollar wherever it stands, and is looked for first, from left to right; a reference ends at the
# first closing parenthesis and may hold anything else, line breaks too.
_TOKEN = re.compile(r"\$\$|\$\(([^)]*)\)")


def expand(text: str, value_of: Callable[[str], str | None]) -> str:
    """Resolve every reference in `text`; one for which `value_of` gives None stays as it is written.

    What a reference brings in is not looked at again.
    """

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        value = value_of(match.group(1))
        return match.group() if value is None else value

    return _TOKEN.sub(replacement, text)


def escape(text: str) -> str:
    """The text from which the kubelet's expansion gives back `text`, whatever variables there are."""
    return text.replace("$", "$$")
