"""Server-side apply of manifest files: `python -I -m tpd.session.apply [--kubeconfig F] [--context C] FILE...`.

A program of its own because the CLI imports no Kubernetes client. Prints JSON lines {"state", "text"}; ends with status
0 or 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

import yaml

from tunnel.kube.api import from_kubeconfig
from tunnel.kube.errors import KubeError

_APPLY = "application/apply-patch+yaml"
_PATHS = {
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
}
"""Only what this distribution's chart has outside its templates."""


def _say(state: str, text: str) -> None:
    sys.stdout.write(json.dumps({"state": state, "text": text}) + "\n")
    sys.stdout.flush()


async def apply(files: list[str], kubeconfig: list[str], context: str) -> int:
    """Apply every document of the files; the exit status."""
    try:
        async with await from_kubeconfig(os.environ, paths=kubeconfig, context=context) as api:
            for file in files:
                for document in yaml.safe_load_all(Path(file).read_text(encoding="utf-8")):
                    if document:
                        name = document["metadata"]["name"]
                        folder = _PATHS[document["apiVersion"], document["kind"]]
                        _say("applying", f"applying {name}")
                        await api.patch(
                            f"{folder}/{name}", document, content_type=_APPLY, fieldManager="tpctl", force="true"
                        )
    except KubeError as error:
        _say("failed", str(error))
        return 1
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Apply manifests.")
    parser.add_argument("--kubeconfig", action="append", default=[])
    parser.add_argument("--context", default="")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()
    sys.exit(asyncio.run(apply(options.files, options.kubeconfig, options.context)))


if __name__ == "__main__":
    main()
