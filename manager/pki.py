"""The manager's certificate authority.

root (Secret `tpctl-root`, ten years) → intermediate (in memory, made at each start and again while it still has half
its life) → leaves (hours). Whoever verifies knows the root only; every chain carries its intermediate. All keys are
EC P-256 (RFC 5280 profiles, RFC 8422 curve). How leaves name parties: `tunnel.identity`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunnel.identity import Identity

ROOT_LIFE = dt.timedelta(days=3650)
INTERMEDIATE_LIFE = dt.timedelta(days=14)
SESSION_LIFE = dt.timedelta(hours=4)
AGENT_LIFE = dt.timedelta(hours=24)
SERVING_LIFE = dt.timedelta(days=7)
_CLOCK_SKEW = dt.timedelta(minutes=5)
"""Certificates begin this much earlier, for laptops whose clock is late."""

KEY_ENTRY = "tls.key"
CERTIFICATE_ENTRY = "tls.crt"


class BadKey(ValueError):
    """A public key that is not signed here; the text says what is wanted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """PKCS #8, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for somebody else's key."""

    chain_pem: bytes
    """Leaf first, then the intermediate."""
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class ServingPair:
    """What a TLS server needs."""

    key_pem: bytes
    chain_pem: bytes
    expires_at: dt.datetime


def make_root(namespace: str, now: dt.datetime) -> Pair:
    """A new root for the manager in `namespace`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"tpctl root of {namespace}")
    builder = _builder(name, name, key.public_key(), now, now + ROOT_LIFE)
    return Pair(key, _authority(builder, path_length=1).sign(key, hashes.SHA256()))


def load_root(key_pem: bytes, certificate_pem: bytes) -> Pair:
    """The root as the Secret holds it. Raises ValueError when the two do not belong together or are something else."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("key and certificate do not belong together")
    return Pair(key, certificate)


def load_public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    """A party's public key, PEM SubjectPublicKeyInfo. Raises `BadKey` unless it is EC P-256."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("the public key is not a PEM SubjectPublicKeyInfo") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadKey("the public key must be EC P-256")
    return key


class Authority:
    """Signs leaves. `now` is the caller's; aware UTC."""

    def __init__(self, root: Pair, now: dt.datetime) -> None:
        self.root = root
        self._intermediate = self._make_intermediate(now)

    @property
    def root_pem(self) -> bytes:
        """What everybody else verifies against."""
        return self.root.certificate_pem

    def sign(self, identity: Identity, public_key_pem: bytes, life: dt.timedelta, now: dt.datetime) -> Leaf:
        """A certificate that says that the holder of this key is `identity`. Raises `BadKey`."""
        return self._leaf(identity, load_public_key(public_key_pem), life, now, ())

    def serving_pair(self, identity: Identity, host_names: tuple[str, ...], now: dt.datetime) -> ServingPair:
        """A new key and certificate of the manager's own, for these names too (the webhook's Service)."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._leaf(identity, key.public_key(), SERVING_LIFE, now, host_names)
        return ServingPair(Pair(key, self.root.certificate).key_pem, leaf.chain_pem, leaf.expires_at)

    def _leaf(
        self,
        identity: Identity,
        key: ec.EllipticCurvePublicKey,
        life: dt.timedelta,
        now: dt.datetime,
        host_names: tuple[str, ...],
    ) -> Leaf:
        issuer = self._intermediate_for(now)
        end = min(now + life, issuer.certificate.not_valid_after_utc)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if identity.kind.is_client else ExtendedKeyUsageOID.SERVER_AUTH
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri), x509.DNSName(identity.dns)]
        names += [x509.DNSName(name) for name in host_names]
        certificate = (
            _builder(_name(f"tpctl {identity.kind.value}"), issuer.certificate.subject, key, now, end)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(_authority_key(issuer), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        return Leaf(certificate.public_bytes(serialization.Encoding.PEM) + issuer.certificate_pem, end)

    def _intermediate_for(self, now: dt.datetime) -> Pair:
        if self._intermediate.certificate.not_valid_after_utc - now < INTERMEDIATE_LIFE / 2:
            self._intermediate = self._make_intermediate(now)
        return self._intermediate

    def _make_intermediate(self, now: dt.datetime) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _name("tpctl intermediate"), self.root.certificate.subject, key.public_key(), now, now + INTERMEDIATE_LIFE
        )
        builder = _authority(builder, path_length=0).add_extension(_authority_key(self.root), critical=False)
        return Pair(key, builder.sign(self.root.key, hashes.SHA256()))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: dt.datetime, end: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True).add_extension(
        _key_usage(authority=True), critical=True
    )


def _authority_key(issuer: Pair) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
