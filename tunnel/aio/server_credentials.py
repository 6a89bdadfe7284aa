"""TLS for gRPC servers whose certificate is renewed while they serve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

Pem = bytes
Material = tuple[Pem, Pem, Pem | None]
"""(private key, certificate chain, root that clients' certificates must come from; None: none is asked for)."""


def renewable_credentials(current: Callable[[], Material], *, require_client: bool) -> grpc.ServerCredentials:
    """For `add_secure_port`. `current()` is what to show from now on; asked for each handshake, in a thread of gRPC's.

    It must return the same object or an equal one for as long as nothing changes. What is new replaces what other
    handshakes may be reading at that moment, without a lock (grpc 1.85): replaced for each handshake, as one is tempted
    to do, some dozens of them at once crash the process.
    """
    shown = current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        material = current()
        if material == shown:
            return None
        shown = material
        return _configuration(material)

    fetch: Any = renewed  # the stubs do not know that None means "as before"
    return grpc.dynamic_ssl_server_credentials(_configuration(shown), fetch, require_client)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    key, chain, root = material
    return grpc.ssl_server_certificate_configuration([(key, chain)], root)
