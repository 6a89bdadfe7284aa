"""Users whose credentials come from a plugin (`exec`) or a legacy `auth-provider`, through the kubernetes package."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
            with _complaints() as complaints:
                await self._loader.load_and_set(configuration)
        except (ConfigException, OSError, ValueError) as error:
            raise KubeconfigError(f"the kubeconfig's credential plugin failed: {error}") from error
        token = configuration.api_key.get("BearerToken")
        certificate = Path(configuration.cert_file).read_bytes() if configuration.cert_file else None
        key = Path(configuration.key_file).read_bytes() if configuration.key_file else None
        if token is None and certificate is None:
            why = complaints[-1] if complaints else "it gave neither a token nor a certificate"
            raise KubeconfigError(f"the kubeconfig's credential plugin failed: {why}; try it with: kubectl auth whoami")
        return (token.removeprefix("Bearer ") if token else None), certificate, key

    async def token(self) -> str | None:
        """The current token; runs the plugin again when the last one expired."""
        return (await self.load())[0]


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the package logs meanwhile: it tells a plugin's failure to nobody else."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(_plain(record.getMessage()))

    logger = logging.getLogger("kubernetes.aio.config.kube_config")
    collector = Collector(logging.WARNING)
    logger.addHandler(collector)
    try:
        yield texts
    finally:
        logger.removeHandler(collector)


def _plain(text: str) -> str:
    """`exec: process returned 3. b'log in\\n'` as `it ended with status 3 (log in)`."""
    ended = re.fullmatch(r"exec: process returned (-?\d+)(?:\. b(['\"])(.*)\2)?", text, re.DOTALL)
    if ended is None:
        return " ".join(text.removeprefix("exec: ").split())
    said = " ".join((ended[3] or "").replace("\\n", " ").split())
    return f"it ended with status {ended[1]}" + (f" ({said})" if said else "")
