"""Which certificate do we show? The operator's, or one made here so that STARTTLS works from the first minute.

Senders that use TLS opportunistically (RFC 3207, RFC 7435) do not verify it, so a self-signed one is worth having.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["make_self_signed", "server_context"]

_VALID_DAYS = 3650


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A fresh context, so that a mismatched pair breaks this one and not one in use. Raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A key under a passphrase is refused: without this, OpenSSL would ask for one on the terminal, and wait.
    context.load_cert_chain(certificate, key, password="")
    return context


def make_self_signed(folder: Path, hostname: str, now: datetime) -> tuple[Path, Path]:
    """(certificate, key) in ``folder``: made once, with mode 0600, and kept; made anew where they cannot be used."""
    certificate, key = folder / "self-signed.pem", folder / "self-signed.key"
    if certificate.exists() and key.exists() and _is_usable(certificate, key):
        return certificate, key
    private = ec.generate_private_key(ec.SECP256R1())
    # RFC 5280 bounds a common name to 64 characters; the alternative name below is the one that counts.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(private, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write_private(
        key,
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    _write_private(certificate, signed.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _is_usable(certificate: Path, key: Path) -> bool:
    try:
        server_context(certificate, key)
    except (OSError, ssl.SSLError):
        return False
    return True


def _write_private(path: Path, data: bytes) -> None:
    """On the disk when it returns: after a power cut an empty file of this name would keep the program from starting."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
