"""Who a certificate is: the one place that knows how sessions, agents and managers are named in it.

A party is named twice in its leaf certificate: as URI SAN `tpctl://KIND/ID`, which programs compare, and as DNS SAN
`ID.KIND.tpctl`, which TLS compares with the name a client expects (`grpc.ssl_target_name_override`). The extended key
usage says which end of a connection it may be: sessions are clients, managers and agents are servers, never both.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID


class Kind(enum.Enum):
    """What a certificate can be for."""

    SESSION = "session"
    """A laptop's session; the id is the Session's uid."""
    AGENT = "agent"
    """A traffic-agent; the id is its pod's uid."""
    MANAGER = "manager"
    """A traffic-manager; the id is its namespace."""

    @property
    def is_client(self) -> bool:
        """Whether it opens connections (EKU clientAuth) or takes them (EKU serverAuth)."""
        return self is Kind.SESSION


class NotTrusted(Exception):
    """A certificate that does not name whom it should, in words for the log."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One party."""

    kind: Kind
    id: str

    @property
    def uri(self) -> str:
        """The URI SAN."""
        return f"tpctl://{self.kind.value}/{self.id}"

    @property
    def dns(self) -> str:
        """The DNS SAN, and what a client gives as `grpc.ssl_target_name_override`."""
        return f"{self.id}.{self.kind.value}.tpctl"

    @classmethod
    def parse(cls, uri: str) -> Identity:
        """The identity of a URI SAN; `NotTrusted` when it is none of ours."""
        scheme, _, rest = uri.partition("://")
        kind, _, name = rest.partition("/")
        if scheme != "tpctl" or kind not in {k.value for k in Kind} or not name or "/" in name:
            raise NotTrusted(f"{uri!r} names no party of tpctl")
        return cls(Kind(kind), name)


@dataclass(frozen=True, slots=True)
class Proven:
    """An identity that a verified certificate proves, until then."""

    identity: Identity
    expires_at: float
    """Unix seconds: no stream may outlive it."""


def identify(certificate_pem: bytes, expected: Kind) -> Proven:
    """Whom a leaf certificate names. Its chain must have been verified already (TLS did).

    Raises `NotTrusted` unless it names exactly one party, of the expected kind, for that kind's end of a connection.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise NotTrusted(f"not a certificate of tpctl: {error}") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise NotTrusted(f"{len(uris)} URI names where one is expected")
    identity = Identity.parse(uris[0])
    if identity.kind is not expected:
        raise NotTrusted(f"{identity.uri} is no {expected.value}")
    needed = ExtendedKeyUsageOID.CLIENT_AUTH if expected.is_client else ExtendedKeyUsageOID.SERVER_AUTH
    if list(usage) != [needed]:
        raise NotTrusted(f"{identity.uri} has another key usage than a {expected.value} may have")
    return Proven(identity, certificate.not_valid_after_utc.timestamp())


def identify_peer(auth_context: Mapping[str, Iterable[bytes]], expected: Kind) -> Proven:
    """Whom the peer of a gRPC call proves to be, from `ServicerContext.auth_context()`; else `NotTrusted`."""
    certificates = list(auth_context.get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise NotTrusted("the peer showed no certificate")
    return identify(certificates[0], expected)
