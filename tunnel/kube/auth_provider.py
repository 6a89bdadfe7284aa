"""Users with a legacy `auth-provider` (`oidc`, `gcp`), through the kubernetes package."""

from __future__ import annotations

import time
from typing import Any

from kubernetes.aio.client import Configuration
from kubernetes.aio.config.kube_config import KubeConfigLoader

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.grant import Grant

_LIFE = 60.0
"""Seconds after which the package is asked again; it knows itself whether the token is still good."""


async def ask(provider: dict[str, Any]) -> Grant:
    """The token of this `auth-provider` entry. What is renewed is written into the entry. Raises `KubeconfigError`."""
    # No more than the user: for what else there is, the package would write files.
    document = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": "http://it"}}],
        "users": [{"name": "it", "user": {"auth-provider": provider}}],
    }
    configuration = Configuration()
    try:
        await KubeConfigLoader(document).load_and_set(configuration)
    except Exception as error:  # whatever a provider's library raises
        raise KubeconfigError(
            f"the kubeconfig's auth-provider failed: {error}; try it with: kubectl auth whoami"
        ) from error
    token = configuration.api_key.get("BearerToken")
    if not token:
        raise KubeconfigError("the kubeconfig's auth-provider gives no token; try it with: kubectl auth whoami")
    return Grant(token=token.removeprefix("Bearer "), expires=time.time() + _LIFE)
