"""The cluster's namespaces, for shell completion: `python -I -m tpd.session.namespaces [--kubeconfig F] [--context C]`.

A program of its own because the CLI imports no Kubernetes client. Prints a JSON list; ends with status 0 or 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys

from tpd.session.kube import paths
from tunnel.kube.api import from_kubeconfig
from tunnel.kube.errors import KubeError


async def namespaces(files: list[str], context: str) -> list[str]:
    """Their names. Raises `KubeError`."""
    async with await from_kubeconfig(os.environ, paths=files, context=context) as api:
        found = await api.list(paths.NAMESPACES)
    return [str(one["metadata"]["name"]) for one in found.get("items") or []]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the cluster's namespaces.")
    parser.add_argument("--kubeconfig", action="append", default=[])
    parser.add_argument("--context", default="")
    options = parser.parse_args()
    try:
        names = asyncio.run(namespaces(options.kubeconfig, options.context))
    except KubeError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(names) + "\n")


if __name__ == "__main__":
    main()
