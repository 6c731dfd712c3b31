"""Keys for the tests of signatures: made once, with the record that belongs to each."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from forwarder.ports import Answer
from tests.fakes import FakeResolver, Zone

T = TypeVar("T")

#: Long past, so that an implementation with a clock of its own does not find it in the future.
NOW = datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)


@dataclass(frozen=True)
class Signer:
    """``ports.SigningKey`` with its private key at hand."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, PKCS1v15(), SHA256())
        return self.private.sign(sha256(data).digest())

    async def signature(self, data: bytes) -> bytes:
        return self.sign(data)

    @property
    def public(self) -> str:
        """p= of its record."""
        key = self.private.public_key()
        if isinstance(self.private, RSAPrivateKey):
            return b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
        return b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()

    @property
    def kind(self) -> str:
        return self.algorithm.partition("-")[0]

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        return f"v=DKIM1; k={self.kind}; p={self.public}"

    @property
    def mailkey_name(self) -> str:
        return f"{self.selector}.mailkey.{self.domain}" if self.selector else f"mailkey.{self.domain}"

    @property
    def mailkey_record(self) -> str:
        return f"v=mailkey1; k={self.kind}; p={self.public}"

    @property
    def pem(self) -> bytes:
        """PKCS#1 for RSA, the bare seed in base64 for ed25519: what dkimpy reads."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return b64encode(self.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


@cache
def rsa_key(bits: int = 2048, number: int = 0, exponent: int = 65537) -> RSAPrivateKey:
    return generate_private_key(exponent, bits)


@cache
def ed25519_key(number: int = 0) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number + 1]) * 32)


def rsa(domain: str = "signer.example", selector: str = "r", bits: int = 2048, number: int = 0) -> Signer:
    return Signer(domain, selector, rsa_key(bits, number))


def ed25519(domain: str = "signer.example", selector: str = "e", number: int = 0) -> Signer:
    return Signer(domain, selector, ed25519_key(number))


def zone(*signers: Signer) -> Zone:
    return {one.key_name: {"TXT": [one.record]} for one in signers}


class AgingResolver(FakeResolver):
    """A cache that holds what ``old`` says and has held it for ``age`` seconds; ``fresh`` look-ups see the zone
    itself."""

    def __init__(self, old: Zone, zone: Zone, age: int) -> None:
        super().__init__(zone)
        self._cache = FakeResolver(old)
        self._age = age
        self.fresh_queries: list[str] = []

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        if fresh:
            self.fresh_queries.append(name)
            return await super().txt(name)
        answer = await self._cache.txt(name)
        return Answer(answer.status, answer.records, answer.ttl, age=self._age, detail=answer.detail)


def run(coroutine: Coroutine[Any, None, T]) -> T:
    """The result of a coroutine that awaits nothing but fakes, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the coroutine waits for something")


def cpu_seconds(coroutine: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """The result and what it cost."""
    start = time.process_time()
    result = run(coroutine)
    return result, time.process_time() - start
