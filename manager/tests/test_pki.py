import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from manager import pki
from tunnel.identity import Identity, Kind, NotTrusted, identify

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
SESSION = Identity(Kind.SESSION, "0b1c-uid")
AGENT = Identity(Kind.AGENT, "pod-uid")


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.Authority(pki.make_root("tpctl-system", NOW), NOW)


def _public(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _leaf(authority: pki.Authority, identity: Identity) -> pki.Leaf:
    return authority.sign(identity, _public(ec.generate_private_key(ec.SECP256R1())), pki.SESSION_LIFE, NOW)


def _chain(leaf: pki.Leaf) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(leaf.chain_pem)


def _policy(authority: pki.Authority, at: dt.datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([authority.root.certificate])).time(at)


def test_a_session_is_a_client_and_nothing_else(authority: pki.Authority) -> None:
    first, *others = _chain(_leaf(authority, SESSION))
    verified = _policy(authority).build_client_verifier().verify(first, others)
    assert x509.UniformResourceIdentifier("tpctl://session/0b1c-uid") in (verified.subjects or [])
    with pytest.raises(VerificationError):
        _policy(authority).build_server_verifier(x509.DNSName(SESSION.dns)).verify(first, others)


def test_an_agent_is_a_server_and_nothing_else(authority: pki.Authority) -> None:
    first, *others = _chain(_leaf(authority, AGENT))
    _policy(authority).build_server_verifier(x509.DNSName("pod-uid.agent.tpctl")).verify(first, others)
    with pytest.raises(VerificationError):
        _policy(authority).build_client_verifier().verify(first, others)


def test_a_leaf_signs_nothing_and_ends(authority: pki.Authority) -> None:
    leaf = _leaf(authority, SESSION)
    first, *others = _chain(leaf)
    with pytest.raises(VerificationError):
        _policy(authority, leaf.expires_at + dt.timedelta(seconds=1)).build_client_verifier().verify(first, others)
    assert not first.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_another_root_does_not_vouch(authority: pki.Authority) -> None:
    first, *others = _chain(_leaf(pki.Authority(pki.make_root("tpctl-system", NOW), NOW), SESSION))
    with pytest.raises(VerificationError):
        _policy(authority).build_client_verifier().verify(first, others)


def test_the_intermediate_is_renewed_in_time_and_bounds_its_leaves(authority: pki.Authority) -> None:
    authority = pki.Authority(authority.root, NOW)
    before = _chain(_leaf(authority, SESSION))[1]
    later = NOW + pki.INTERMEDIATE_LIFE * 0.6
    pair = authority.serving_pair(Identity(Kind.MANAGER, "ns"), ("traffic-manager.ns.svc",), later)
    first, after = x509.load_pem_x509_certificates(pair.chain_pem)
    assert after != before
    assert first.not_valid_after_utc <= after.not_valid_after_utc
    _policy(authority, later).build_server_verifier(x509.DNSName("traffic-manager.ns.svc")).verify(first, [after])


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"nonsense",
        _public(ec.generate_private_key(ec.SECP384R1())),
        _public(rsa.generate_private_key(65537, 2048)),
    ],
)
def test_only_p256_keys_are_signed(authority: pki.Authority, pem: bytes) -> None:
    with pytest.raises(pki.BadKey):
        authority.sign(SESSION, pem, pki.SESSION_LIFE, NOW)


def test_the_root_is_loaded_as_it_was_made() -> None:
    root = pki.make_root("ns", NOW)
    assert pki.load_root(root.key_pem, root.certificate_pem).certificate == root.certificate
    with pytest.raises(ValueError, match="belong together"):
        pki.load_root(root.key_pem, pki.make_root("ns", NOW).certificate_pem)


def test_identities_are_read_from_leaves(authority: pki.Authority) -> None:
    leaf = _leaf(authority, SESSION)
    proven = identify(leaf.chain_pem, Kind.SESSION)
    assert proven.identity == SESSION
    assert proven.expires_at == leaf.expires_at.timestamp()
    with pytest.raises(NotTrusted):
        identify(leaf.chain_pem, Kind.AGENT)
    with pytest.raises(NotTrusted):
        identify(_leaf(authority, AGENT).chain_pem, Kind.SESSION)
    with pytest.raises(NotTrusted):
        identify(authority.root_pem, Kind.SESSION)


@pytest.mark.parametrize("uri", ["", "http://session/x", "tpctl://session/", "tpctl://root/x", "tpctl://session/a/b"])
def test_foreign_names_are_nobody(uri: str) -> None:
    with pytest.raises(NotTrusted):
        Identity.parse(uri)
