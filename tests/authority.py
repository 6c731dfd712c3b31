"""Certificates with any fault that a test wants: an authority in a few lines, as domains make their own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Issued", "chain_of", "issue", "server_with"]

_DAY = timedelta(days=1)
_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and who issued it; ``None``: itself."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuer: Issued | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(_DER)

    @property
    def spki(self) -> bytes:
        return self.key.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    authority: bool | None = None,
    names: tuple[str, ...] = (),
    expired: bool = False,
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> Issued:
    """``names`` are DNS names; ``authority=None`` leaves basicConstraints out, ``expired`` was valid long ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - (100 * _DAY if expired else _DAY)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + 30 * _DAY)
    )
    if authority is not None:
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    for one in extensions:
        builder = builder.add_extension(one, critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key, issuer)


def chain_of(leaf: Issued, *, root: bool = True) -> list[bytes]:
    """DER, from the leaf up, with or without the last."""
    chain = [leaf.der]
    while leaf.issuer is not None and (root or leaf.issuer.issuer is not None):
        leaf = leaf.issuer
        chain.append(leaf.der)
    return chain


def server_with(leaf: Issued, folder: Path, *, root: bool = True) -> ssl.SSLContext:
    """A server that sends this chain."""
    file = folder / f"{leaf.certificate.serial_number}.pem"
    key = leaf.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificates = [ssl.DER_cert_to_PEM_cert(one).encode() for one in chain_of(leaf, root=root)]
    file.write_bytes(key + b"".join(certificates))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
