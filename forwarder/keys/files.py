"""Are these files of keys and secrets fit to be used, and how is a new one made?

Reading an RSA key with OpenSSL's own check takes 40 ms and tests primes again that were
tested when the key was made; here the private key signs once and the public key verifies it, which takes under 1 ms and
shows what matters: that signatures made with this file will be valid.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import idna
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from forwarder.ports import Dialect, Legacy

__all__ = [
    "LEAST_DKIM_BITS",
    "LEAST_MAILKEY_BITS",
    "Key",
    "KeyFile",
    "KeyFileError",
    "LegacyFile",
    "canonical_domain",
    "generate_ed25519",
    "generate_rsa",
    "generate_secret",
    "load_key",
    "load_legacy",
    "load_legacy_secrets",
    "load_secrets",
    "read_private",
]

#: RFC 8301 section 3.2: signers must not use fewer than 1024 bits for DKIM (and should use 2048).
LEAST_DKIM_BITS = 1024
#: docs/mailkey.md: verifiers refuse fewer.
LEAST_MAILKEY_BITS = 2048
#: Octets: an SRS secret is the key of an HMAC, and 128 bits are out of reach for guessing.
LEAST_SECRET = 16
#: Octets of a key or secret file. An RSA key of 16384 bits has 12 KB.
MAX_FILE = 64 * 1024

_PKCS1V15 = padding.PKCS1v15()
_SHA256 = hashes.SHA256()


class KeyFileError(Exception):
    """A key or secret file cannot be used. The text names the file and the cure, never its content."""


class KeyFile(NamedTuple):
    """Where a key lies and for whom it signs. ``selector`` is ``""`` for the unnamed mailkey."""

    domain: str
    selector: str
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """``ports.SigningKey``: a private key that was loaded and tried once."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)
    #: The file that it came from.
    path: Path | None = field(default=None, repr=False)

    @property
    def bits(self) -> int:
        """The size of an RSA key; 0 for ed25519."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 0

    @property
    def algorithm(self) -> str:
        """See ``ports.SigningKey``."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        """See ``ports.SigningKey``."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, _PKCS1V15, _SHA256)
        # RFC 8463 section 3: Ed25519 (RFC 8032) over the SHA-256 digest, not over the data.
        return self.private.sign(sha256(data).digest())

    async def signature(self, data: bytes) -> bytes:
        """See ``ports.SigningKey``."""
        return self.sign(data)

    def public(self) -> bytes:
        """The public key as ``p=`` has it: SubjectPublicKeyInfo for rsa, the raw 32 octets for ed25519."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        return self.private.public_key().public_bytes_raw()


@lru_cache(maxsize=1024)
def canonical_domain(domain: str) -> str:
    """Lower case, A-labels, no final dot: how a domain is compared here."""
    name = domain.lower().rstrip(".")
    if not name.isascii():
        with contextlib.suppress(idna.IDNAError):
            return idna.encode(name, uts46=True).decode("ascii")
    return name


# --- reading ----------------------------------------------------------------------------------------------------------


def load_key(file: KeyFile, *, least_bits: int = LEAST_DKIM_BITS) -> Key:
    """The key in this file: PKCS#8 or PKCS#1, PEM or DER, not encrypted; ed25519, or rsa of at least ``least_bits``."""
    content = read_private(file.path)
    private = _parse_private(file.path, content)
    if isinstance(private, RSAPrivateKey) and private.key_size < least_bits:
        raise KeyFileError(f"{file.path}: {private.key_size} bits are too few, make a key with {least_bits} or more")
    try:
        if isinstance(private, RSAPrivateKey):
            private.public_key().verify(private.sign(b"try", _PKCS1V15, _SHA256), b"try", _PKCS1V15, _SHA256)
        else:
            private.public_key().verify(private.sign(b"try"), b"try")
    except (InvalidSignature, InternalError, ValueError):
        raise KeyFileError(
            f"{file.path}: damaged, its signatures are not valid; restore it or make a new one"
        ) from None
    return Key(canonical_domain(file.domain), file.selector, private, file.path)


def _parse_private(path: Path, content: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    pem = b"-----BEGIN" in content
    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
    try:
        # Skips the 40 ms test of the primes; load_key tries a signature instead.
        private = load(content, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise KeyFileError(f"{path}: the key is encrypted; store it without a passphrase (openssl pkey -in)") from None
    except (ValueError, UnsupportedAlgorithm, InternalError):
        # The last: what OpenSSL refuses and cryptography has no word for, as a key whose length is not of its kind.
        raise KeyFileError(f"{path}: no private key in PKCS#8 or PKCS#1 form; make one with: forwarder init") from None
    if isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        return private
    raise KeyFileError(f"{path}: neither an rsa nor an ed25519 key; no verifier would know what to do with it")


def load_secrets(path: Path) -> tuple[bytes, ...]:
    """SRS secrets, one a line, the first mints; empty lines and lines that begin with ``#`` do not count."""
    found = _lines(read_private(path))
    if not found:
        raise KeyFileError(
            f"{path}: no secret in it; write one of {LEAST_SECRET} octets or more, or run: forwarder init"
        )
    for number, secret in enumerate(found, 1):
        if len(secret) < LEAST_SECRET:
            raise KeyFileError(f"{path}: secret {number} is shorter than {LEAST_SECRET} octets; lengthen it")
    return found


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """Where the secrets of another program's reversible addresses lie, and what counts of them (``ports.Legacy``)."""

    dialect: Dialect
    domain: str
    path: Path
    until: date
    hash_length: int = 4
    max_age: int = 21


def load_legacy(file: LegacyFile) -> Legacy:
    """What verifies those addresses. Raises KeyFileError."""
    secrets = load_legacy_secrets(file.path)
    return Legacy(file.dialect, canonical_domain(file.domain), secrets, file.until, file.hash_length, file.max_age)


def load_legacy_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets of another program, one a line as it had them: of any length, all verify."""
    found = _lines(read_private(path))
    if not found:
        raise KeyFileError(f"{path}: no secret in it; copy the one of the program that minted the addresses")
    return found


def _lines(content: bytes) -> tuple[bytes, ...]:
    lines = [line.strip() for line in content.splitlines()]
    return tuple(line for line in lines if line and not line.startswith(b"#"))


def read_private(path: Path) -> bytes:
    """The content of a file that nobody else can read. Symbolic links are fine: that is how secrets get mounted."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; is it there, and owned by the user we run as?") from None
    try:
        # What was opened is what is judged: a path could be exchanged in between.
        _refuse_unless_private(path, os.fstat(descriptor))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE:
        raise KeyFileError(f"{path}: larger than {MAX_FILE} octets, so it is no key")
    return content


def _refuse_unless_private(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise KeyFileError(f"{path}: not a regular file")
    if facts.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path}: owned by uid {facts.st_uid}; chown it to the user we run as, or to root")
    # Who may read what systemd hands over (LoadCredential=) is in an access control list, whose mask stands where the group's
    # rights stand.
    if facts.st_mode & (0o037 if _is_credential(path) else 0o077):
        raise KeyFileError(f"{path}: others can use it (mode {stat.S_IMODE(facts.st_mode):04o}); chmod 600 {path}")


def _is_credential(path: Path) -> bool:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


# --- making -----------------------------------------------------------------------------------------------------------


def generate_ed25519(path: Path) -> None:
    """A new key in a new file. Raises KeyFileError where the file exists."""
    _write_key(path, Ed25519PrivateKey.generate())


def generate_rsa(path: Path, bits: int = 2048) -> None:
    """A new key in a new file. Raises KeyFileError where the file exists."""
    _write_key(path, generate_private_key(65537, bits))


def generate_secret(path: Path) -> None:
    """A new SRS secret in a new file. Raises KeyFileError where the file exists."""
    note = "# SRS secrets, one a line. The first mints, all verify: put a new one on top and keep the old.\n"
    _write_new(path, f"{note}{secrets.token_urlsafe(32)}\n".encode())


def _write_key(path: Path, private: RSAPrivateKey | Ed25519PrivateKey) -> None:
    _write_new(
        path,
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _write_new(path: Path, content: bytes) -> None:
    """All of it or no file, readable by nobody else at any moment, never over an existing one; durable."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists already; mail is signed with it, so move it away yourself") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"{path}: {error.strerror}") from None
