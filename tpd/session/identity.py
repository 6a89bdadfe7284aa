"""This session's key, and the certificates that the manager signs for it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Identity:
    """PEM bytes as gRPC takes them. `chain` and `root` are empty until the manager has signed."""

    key: bytes
    public_key: str
    uid: str = ""
    """Of the Session object: the session's identity everywhere."""
    chain: bytes = b""
    root: bytes = b""

    def signed(self, uid: str, chain: str, root: str) -> Identity:
        """The same key with a certificate."""
        return replace(self, uid=uid, chain=chain.encode(), root=root.encode())


def new_identity() -> Identity:
    """A new EC P-256 key; it never leaves this process."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Identity(private, public.decode())
