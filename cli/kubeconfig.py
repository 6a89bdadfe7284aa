"""The names in the user's kubeconfig, for shell completion only: the session worker reads it for real."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def contexts(environment: Mapping[str, str]) -> list[str]:
    """All contexts of KUBECONFIG's files, or of ~/.kube/config. Files that cannot be read have none."""
    import yaml

    default = str(Path(environment.get("HOME") or "~").expanduser() / ".kube" / "config")
    found: dict[str, None] = {}
    for path in (environment.get("KUBECONFIG") or default).split(os.pathsep):
        try:
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        entries = document.get("contexts") if isinstance(document, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                found[entry["name"]] = None
    return list(found)
