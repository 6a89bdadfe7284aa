"""The TLS side of a login."""

from __future__ import annotations

import os
import ssl

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.grant import Grant
from tunnel.kube.kubeconfig import Credentials


def client_context(credentials: Credentials, grant: Grant) -> ssl.SSLContext:
    """How to check the API server, and the certificate to show to it. Raises `KubeconfigError`."""
    try:
        context = ssl.create_default_context(cadata=credentials.ca.decode() if credentials.ca else None)
        if credentials.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if grant.certificate and grant.key:
            _load(context, grant.certificate + b"\n" + grant.key)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"the certificates of context {credentials.context!r} cannot be used: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, pair: bytes) -> None:
    """The ssl module loads certificates from files only; this one is in memory, so nothing is ever left behind."""
    with os.fdopen(os.memfd_create("tpctl"), "wb") as memory:
        memory.write(pair)
        memory.flush()
        context.load_cert_chain(f"/proc/self/fd/{memory.fileno()}")
