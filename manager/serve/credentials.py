"""The serving certificates of the two gRPC ports, renewed while they are in use."""

from __future__ import annotations

import datetime as dt

import grpc

from manager import pki
from tunnel.aio.server_credentials import Material, renewable_credentials
from tunnel.identity import Identity

Pair = tuple[bytes, bytes]


class Serving:
    """Hands out the current key and certificate; a new pair when half of the old one's life is over."""

    def __init__(self, authority: pki.Authority, identity: Identity, host_names: tuple[str, ...]) -> None:
        self._authority = authority
        self._identity = identity
        self._host_names = host_names
        self._pair = self._make()

    def _make(self) -> pki.ServingPair:
        return self._authority.serving_pair(self._identity, self._host_names, dt.datetime.now(dt.UTC))

    def pair(self) -> pki.ServingPair:
        """The pair to serve with now. May be called from any thread."""
        if self._pair.expires_at - dt.datetime.now(dt.UTC) < pki.SERVING_LIFE / 2:
            self._pair = self._make()
        return self._pair

    def server_credentials(self, *, require_client: bool) -> grpc.ServerCredentials:
        """For `add_secure_port`. With `require_client` the handshake fails without a certificate of our root."""
        root = self._authority.root_pem if require_client else None

        def current() -> Material:
            pair = self.pair()
            return pair.key_pem, pair.chain_pem, root

        return renewable_credentials(current, require_client=require_client)
