"""Kubeconfig files with everything embedded, so that they can be read from inside any room."""

import base64
import json
from pathlib import Path

from integration.cluster.pki import Pair


def kubeconfig(*, server: str, authority: bytes, client: Pair, namespace: str = "default", name: str = "tpctl") -> str:
    """The text of a kubeconfig (JSON, which is YAML too) with one context called `name`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    return json.dumps(document, indent=1)


def write_kubeconfig(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
