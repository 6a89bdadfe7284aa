"""A certificate authority for tests: real certificates, named as `tunnel.identity` says."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunnel.identity import Identity


@dataclass(frozen=True, slots=True)
class Holder:
    """A party's private key and certificate chain, PEM."""

    key_pem: bytes
    chain_pem: bytes


class FakeAuthority:
    """A root that signs leaves directly."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tpctl test root")])
        self._name = name
        builder = _builder(name, name, self._key.public_key(), dt.timedelta(hours=1)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.root_pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, identity: Identity, public_key_pem: bytes, life: dt.timedelta = dt.timedelta(hours=1)) -> bytes:
        """The certificate of somebody who keeps its key."""
        key = serialization.load_pem_public_key(public_key_pem)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return self._leaf(identity, key, life)

    def issue(self, identity: Identity, life: dt.timedelta = dt.timedelta(hours=1)) -> Holder:
        """A new key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Holder(key_pem, self._leaf(identity, key.public_key(), life))

    def _leaf(self, identity: Identity, key: ec.EllipticCurvePublicKey, life: dt.timedelta) -> bytes:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if identity.kind.is_client else ExtendedKeyUsageOID.SERVER_AUTH
        names = [x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {identity.kind.value}")])
        return (
            _builder(subject, self._name, key, life)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + life)
    )
