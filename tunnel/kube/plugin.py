"""Users whose credentials come from a plugin (`exec`) or a legacy `auth-provider`, through the kubernetes package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from tunnel.kube.errors import KubeconfigError


class CredentialPlugin:
    """Asks the kubernetes package for what the context's plugin says; the plugin's own cache and expiry apply."""

    def __init__(self, files: Sequence[Path], context: str) -> None:
        merged = KubeConfigMerger(":".join(str(path) for path in files))
        self._loader = KubeConfigLoader(merged.config, active_context=context, config_base_path=None)

    async def load(self) -> tuple[str | None, bytes | None, bytes | None]:
        """(bearer token, certificate PEM, key PEM); each may be None."""
        configuration = Configuration()
        try:
            await self._loader.load_and_set(configuration)
        except (ConfigException, OSError, ValueError) as error:
            raise KubeconfigError(f"the kubeconfig's credential plugin failed: {error}") from error
        token = configuration.api_key.get("BearerToken")
        certificate = Path(configuration.cert_file).read_bytes() if configuration.cert_file else None
        key = Path(configuration.key_file).read_bytes() if configuration.key_file else None
        if token is None and certificate is None:
            raise KubeconfigError(
                "the kubeconfig's credential plugin gave neither a token nor a certificate; run kubectl once to see why"
            )
        return (token.removeprefix("Bearer ") if token else None), certificate, key

    async def token(self) -> str | None:
        """The current token; runs the plugin again when the last one expired."""
        return (await self.load())[0]
