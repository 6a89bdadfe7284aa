"""The root of trust: kept in the Secret `tpctl-root`, announced to the API server as the webhook's CA bundle."""

from __future__ import annotations

import base64
import datetime as dt
import logging
from typing import Any

from manager import pki
from manager.config import ROOT_SECRET, Config
from manager.kube import paths
from tunnel.kube.api import JSON_PATCH, Api
from tunnel.kube.errors import ApiError, KubeError

log = logging.getLogger(__name__)


class NoRoot(Exception):
    """There is no root and none can be made; the text says what to do."""


async def load_or_make(api: Api, config: Config, now: dt.datetime) -> pki.Pair:
    """The root from the Secret. The first manager to start makes it; Kubernetes decides who is first."""
    path = paths.secrets(config.namespace, ROOT_SECRET)
    for _ in range(5):
        try:
            secret = await api.get(path)
        except ApiError as error:
            if error.not_found:
                raise NoRoot(
                    f"the Secret {ROOT_SECRET} is missing in {config.namespace}: run `tpctl helm upgrade`"
                ) from error
            raise
        data: dict[str, Any] = secret.get("data") or {}
        if data:
            try:
                return pki.load_root(
                    base64.b64decode(data[pki.KEY_ENTRY]), base64.b64decode(data[pki.CERTIFICATE_ENTRY])
                )
            except (KeyError, ValueError) as error:
                raise NoRoot(
                    f"the Secret {ROOT_SECRET} in {config.namespace} holds no key and certificate that belong "
                    "together: delete it and run `tpctl helm upgrade`"
                ) from error
        root = pki.make_root(config.namespace, now)
        secret["data"] = {
            pki.KEY_ENTRY: base64.b64encode(root.key_pem).decode(),
            pki.CERTIFICATE_ENTRY: base64.b64encode(root.certificate_pem).decode(),
        }
        try:
            await api.replace(path, secret)
        except ApiError as error:
            if not error.conflict:
                raise
            continue
        log.info("made the root certificate")
        return root
    raise NoRoot(f"the Secret {ROOT_SECRET} in {config.namespace} changes all the time")


async def announce(api: Api, config: Config, root_pem: bytes) -> bool:
    """Write the root into the webhook's configuration, unless it is there; False when that has to be tried again."""
    path = f"{paths.ADMISSION}/mutatingwebhookconfigurations/{config.webhook_configuration}"
    bundle = base64.b64encode(root_pem).decode()
    try:
        present = await api.get(path)
        patch = [
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": bundle}
            for index, webhook in enumerate(present.get("webhooks") or ())
            if (webhook.get("clientConfig") or {}).get("caBundle") != bundle
        ]
        if patch:
            version = present["metadata"]["resourceVersion"]
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
            await api.patch(path, [guard, *patch], content_type=JSON_PATCH)
            log.info("announced the webhook's certificate")
    except KubeError as error:
        log.warning("cannot write the webhook's CA bundle: %s", error)
        return False
    return True
