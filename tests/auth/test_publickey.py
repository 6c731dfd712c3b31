"""Keys and signatures from strangers: RFC 8301 sizes, RFC 8463 keys, and points of small order."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.publickey import BadKey, load_key, verify_digest
from tests.auth.signers import ed25519, rsa, rsa_key

PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME
DIGEST = sha256(b"what was signed").digest()
Point = tuple[int, int]


def add(one: Point, other: Point) -> Point:
    """The twisted Edwards curve -x2 + y2 = 1 + d x2 y2 (RFC 8032 section 5.1), written down as in the textbook."""
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, PRIME) % PRIME
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME
    return x, y


def point(y: int, sign: int) -> Point | None:
    """RFC 8032 section 5.1.3."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
    x = pow(square, (PRIME + 3) // 8, PRIME)
    if (x * x - square) % PRIME:
        x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    if (x * x - square) % PRIME:
        return None
    return (PRIME - x) % PRIME if x % 2 != sign else x, y


def eightfold(one: Point) -> Point:
    for _ in range(3):
        one = add(one, one)
    return one


def small_order_points() -> set[Point]:
    """All eight, found by taking points of any order times the order of the big subgroup."""
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[Point] = set()
    for y in range(2, 40):
        for sign in (0, 1):
            if (start := point(y, sign)) is not None:
                total, power = (0, 1), start
                for bit in range(order.bit_length()):
                    if order >> bit & 1:
                        total = add(total, power)
                    power = add(power, power)
                found.add(total)
    return found


def test_every_point_of_small_order_is_refused() -> None:
    points = small_order_points()
    assert len(points) == 8
    for x, y in points:
        assert eightfold((x, y)) == (0, 1)
        for sign in (0, 1):
            raw = (y | sign << 255).to_bytes(32, "little")
            assert isinstance(load_key(b"ed25519", raw, 1024), BadKey)
            if y + PRIME < 2**255:
                assert isinstance(load_key(b"ed25519", (y + PRIME | sign << 255).to_bytes(32, "little"), 1024), BadKey)


def test_openssl_alone_would_take_a_forged_signature_under_a_point_of_small_order() -> None:
    """Why the list is there: the identity as the key, as R, and zero as S fit every message."""
    identity = (1).to_bytes(32, "little")
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), DIGEST)
    except InvalidSignature:
        pytest.skip("this OpenSSL refuses it by itself")


@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_rsa_keys_that_rfc_8301_asks_for_are_taken(bits: int) -> None:
    signer = rsa(bits=bits)
    key = load_key(b"rsa", b64decode(signer.public), 1024)
    assert isinstance(key, RSAPublicKey)
    assert verify_digest(key, signer.sign(b"what was signed"), DIGEST)


def test_a_bare_pkcs1_key_is_the_same_key() -> None:
    public = rsa_key().public_key()
    key = load_key(b"rsa", public.public_bytes(Encoding.DER, PublicFormat.PKCS1), 1024)
    assert key == public


def pkcs1(modulus: int, exponent: int) -> bytes:
    """RFC 8017 RSAPublicKey in DER, for keys that no library makes."""

    def length(octets: bytes) -> bytes:
        size = len(octets)
        return (
            bytes([size])
            if size < 128
            else bytes([0x80 | (size.bit_length() + 7) // 8]) + size.to_bytes((size.bit_length() + 7) // 8, "big")
        )

    def integer(number: int) -> bytes:
        octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return b"\x02" + length(octets) + octets

    content = integer(modulus) + integer(exponent)
    return b"\x30" + length(content) + content


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        pytest.param(2**511 | 1, 65537, id="512 bits"),
        pytest.param(2**1022 | 1, 65537, id="1023 bits"),
        pytest.param(2**4096 | 1, 65537, id="4097 bits"),
        pytest.param(2**8191 | 1, 65537, id="8192 bits"),
        pytest.param(2**16383 | 1, 65537, id="16384 bits"),
        pytest.param(2**100000 | 1, 65537, id="100,000 bits"),
        pytest.param(rsa_key().public_key().public_numbers().n, 1, id="exponent 1: the signature is the digest"),
        pytest.param(rsa_key().public_key().public_numbers().n, 2**2040 | 1, id="an exponent as long as the modulus"),
        pytest.param(2**2047, 65537, id="an even modulus"),
    ],
)
def test_odd_rsa_keys_are_refused_or_verify_nothing(modulus: int, exponent: int) -> None:
    key = load_key(b"rsa", pkcs1(modulus, exponent), 1024)
    assert isinstance(key, BadKey) or not verify_digest(key, DIGEST.rjust(256, b"\0"), DIGEST)
    if not 1024 <= modulus.bit_length() <= 4096 or exponent.bit_length() > 64 or exponent < 3:
        assert isinstance(key, BadKey)


def test_a_key_of_another_kind_is_refused() -> None:
    ec = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert load_key(b"rsa", ec, 1024) == BadKey("not an RSA key")
    assert load_key(b"rsa", b64decode(ed25519().public), 1024) == BadKey("RSA key malformed")
    assert load_key(b"ed25519", b64decode(rsa().public), 1024) == BadKey("ed25519 key of 294 octets, not 32")
    assert load_key(b"dsa", b"", 1024) == BadKey("unknown k=")


@given(st.sampled_from([b"rsa", b"ed25519"]), st.binary(max_size=80))
def test_octets_give_a_key_or_a_reason(kind: bytes, octets: bytes) -> None:
    load_key(kind, octets, 1024)


@given(st.integers(0, 293), st.integers(0, 255))
def test_a_damaged_key_gives_a_key_or_a_reason_and_no_signature(at: int, octet: int) -> None:
    signer = rsa()
    octets = bytearray(b64decode(signer.public))
    before, octets[at] = octets[at], octet
    key = load_key(b"rsa", bytes(octets), 1024)
    if not isinstance(key, BadKey) and before != octet:
        assert not verify_digest(key, signer.sign(b"what was signed"), DIGEST)


@given(st.binary(max_size=600))
def test_octets_are_no_signature(signature: bytes) -> None:
    for signer in (rsa(), ed25519()):
        key = load_key(signer.kind.encode(), b64decode(signer.public), 1024)
        assert not isinstance(key, BadKey)
        assert not verify_digest(key, signature, DIGEST)
