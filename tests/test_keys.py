from __future__ import annotations

import base64
import os
import stat
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder import keys as module
from forwarder.keys import (
    Key,
    KeyFile,
    KeyFileError,
    Keys,
    LegacyFile,
    dkim_record,
    generate_ed25519,
    generate_rsa,
    generate_secret,
    load_key,
    load_secrets,
    mailkey_record,
    public_record,
)
from forwarder.ports import Dialect, KeyRing, SigningKey

RSA = rsa.generate_private_key(65537, 2048)
WEAK = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8, PKCS1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()
SECRET = b"0123456789abcdef"


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(PEM, PKCS8, PLAIN)


def load(path: Path) -> Key:
    return load_key(KeyFile("fwd.test", "s", path))


# --- loading ---


@pytest.mark.parametrize(
    "content",
    [pem(RSA), RSA.private_bytes(PEM, PKCS1, PLAIN), RSA.private_bytes(DER, PKCS8, PLAIN), b"a note\n" + pem(RSA)],
    ids=["PKCS#8", "PKCS#1", "PKCS#8 DER", "with a note"],
)
def test_an_rsa_key_signs_so_that_its_public_key_verifies(tmp_path: Path, content: bytes) -> None:
    key = load(put(tmp_path / "k", content))
    assert (key.domain, key.selector, key.algorithm) == ("fwd.test", "s", "rsa-sha256")
    RSA.public_key().verify(key.sign(b"data"), b"data", padding.PKCS1v15(), hashes.SHA256())


def test_an_ed25519_key_signs_the_digest_of_the_data(tmp_path: Path) -> None:
    key = load(put(tmp_path / "k", pem(ED)))
    assert key.algorithm == "ed25519-sha256"
    # RFC 8463 section 3
    ED.public_key().verify(key.sign(b"data"), sha256(b"data").digest())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602])
def test_a_key_that_others_can_use_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError, match=f"k: others can use it .mode {mode:04o}.; chmod 600 .*k"):
        load(put(tmp_path / "k", pem(ED), mode))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_that_only_its_owner_can_use_is_taken(tmp_path: Path, mode: int) -> None:
    assert load(put(tmp_path / "k", pem(ED), mode)).sign(b"x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused_with_the_cure(tmp_path: Path) -> None:
    path = put(tmp_path / "k", pem(ED))
    os.chown(path, 12345, 12345)
    with pytest.raises(KeyFileError, match="owned by uid 12345; chown"):
        load(path)


def test_a_key_behind_a_symbolic_link_is_judged_by_the_file_itself(tmp_path: Path) -> None:
    path = put(tmp_path / "k", pem(ED))
    (tmp_path / "link").symlink_to(path)
    assert load(tmp_path / "link").sign(b"x")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="others can use it"):
        load(tmp_path / "link")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no private key"),
        (b"rubbish", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nrubbish\n-----END PRIVATE KEY-----\n", "no private key"),
        (ED.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "no private key"),
        (RSA.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"x")), "encrypted"),
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, PLAIN), "neither an rsa nor an ed25519"),
        (b"x" * (module.MAX_FILE + 1), "larger than"),
    ],
    ids=["empty", "rubbish", "rubbish PEM", "public", "encrypted", "elliptic curve", "huge"],
)
def test_what_is_no_usable_key_is_refused_by_name_without_its_content(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(KeyFileError, match=words) as caught:
        load(put(tmp_path / "mykey", content))
    assert "mykey" in str(caught.value)
    assert "rubbish" not in str(caught.value)


def test_a_missing_key_and_a_directory_and_a_fifo_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "dir").mkdir(0o700)
    for name in ("none", "fifo", "dir"):
        with pytest.raises(KeyFileError, match=name):
            load(tmp_path / name)


def test_a_damaged_key_is_found_before_it_signs_mail(tmp_path: Path) -> None:
    good = RSA.private_numbers()
    bad = rsa.RSAPrivateNumbers(
        good.p, good.q, good.d + 2, good.dmp1 + 2, good.dmq1, good.iqmp, good.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(KeyFileError, match="damaged"):
        load(put(tmp_path / "k", pem(bad)))


def test_a_key_of_a_kind_that_its_length_denies_is_refused(tmp_path: Path) -> None:
    # As a random run of the test below found it: the last octet of the algorithm's name, of ed25519, is that of X448.
    content = bytearray(ED.private_bytes(DER, PKCS8, PLAIN))
    content[content.index(bytes.fromhex("06032b6570")) + 4] = 0x6F
    with pytest.raises(KeyFileError, match="no private key"):
        load(put(tmp_path / "k", bytes(content)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_key_file_with_any_damage_is_refused_or_still_signs_validly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = RSA if data.draw(st.booleans()) else ED
    content = bytearray(private.private_bytes(DER, PKCS8, PLAIN))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        key = load(put(tmp_path_factory.getbasetemp() / "damaged", bytes(content)))
    except KeyFileError:
        return
    assert key.sign(b"x")


def test_no_key_shows_in_a_repr(tmp_path: Path) -> None:
    assert repr(load(put(tmp_path / "k", pem(RSA)))) == "Key(domain='fwd.test', selector='s')"


# --- the ring ---


@pytest.fixture
def ring(tmp_path: Path) -> Keys:
    big, ed = put(tmp_path / "rsa", pem(RSA)), put(tmp_path / "ed", pem(ED))
    return Keys.load(
        srs_secret_file=put(tmp_path / "secret", SECRET + b"\n"),
        mailkey=[KeyFile("Fwd.test", "", ed), KeyFile("fwd.test", "old", big), KeyFile("sub.fwd.test", "k2", big)],
        dkim=[KeyFile("fwd.test", "ed", ed), KeyFile("fwd.test", "rsa", big), KeyFile("bücher.test", "b", big)],
        arc=KeyFile("fwd.test", "arc", big),
    )


def test_a_ring_is_what_the_core_asks_for(ring: Keys) -> None:
    door: KeyRing = ring
    key: SigningKey | None = door.mailkey("fwd.test")
    assert key is not None


@pytest.mark.parametrize(
    ("domain", "selector"),
    [
        ("fwd.test", ""),
        ("FWD.test.", ""),
        ("a.b.fwd.test", ""),
        ("sub.fwd.test", "k2"),
        ("deep.sub.fwd.test", "k2"),
        ("xfwd.test", None),
        ("test", None),
        ("", None),
    ],
)
def test_the_mailkey_of_the_nearest_parent_signs(ring: Keys, domain: str, selector: str | None) -> None:
    key = ring.mailkey(domain)
    assert (key and key.selector) == selector


def test_dkim_keys_come_rsa_first(ring: Keys) -> None:
    assert [key.selector for key in ring.dkim("fwd.test")] == ["rsa", "ed"]
    assert [key.selector for key in ring.dkim("srs.fwd.test")] == ["rsa", "ed"]
    assert list(ring.dkim("else.test")) == []


def test_a_domain_is_the_same_in_u_labels_and_a_labels(ring: Keys) -> None:
    assert [key.selector for key in ring.dkim("xn--bcher-kva.test")] == ["b"]
    assert [key.selector for key in ring.dkim("BÜCHER.test")] == ["b"]
    assert [key.domain for key in ring.dkim("bücher.test")] == ["xn--bcher-kva.test"]


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "a..b", "-\u0301.x", "x" * 300, "\udcff"])
def test_a_domain_that_is_none_has_no_key(ring: Keys, domain: str) -> None:
    assert ring.mailkey(domain) is None


def test_the_sealing_key_is_there_only_when_it_was_given(ring: Keys) -> None:
    arc = ring.arc()
    assert arc is not None
    assert arc.selector == "arc"
    assert Keys([], [], None, [SECRET]).arc() is None


def test_rings_are_alike_only_if_all_of_them_is(tmp_path: Path) -> None:
    """A reload goes on with the keys that it has where nothing in them has changed."""
    generate_ed25519(tmp_path / "a")
    generate_ed25519(tmp_path / "b")
    a, b = (KeyFile("fwd.test", "s", tmp_path / name) for name in "ab")
    secret = put(tmp_path / "secret", b"a secret of some length\n")
    legacy = LegacyFile(Dialect.POSTSRSD, "fwd.test", secret, date(2099, 12, 31))
    given: dict[str, Any] = {"mailkey": [a], "dkim": [a], "arc": a, "srs_secret_file": secret, "srs_legacies": [legacy]}

    def content(**changes: Any) -> tuple[object, ...]:
        return Keys.load(**given | changes).content()

    assert content() == content()
    others: list[dict[str, Any]] = [
        {"mailkey": [b]},
        {"mailkey": [a, b]},
        {"mailkey": [a._replace(selector="t")]},
        {"dkim": [a._replace(domain="other.test")]},
        {"dkim": []},
        {"arc": None},
        {"arc": b},
        {"srs_secret_file": put(tmp_path / "other", b"another secret of that kind\n")},
        {"srs_legacies": []},
        {"srs_legacies": [replace(legacy, until=date(2098, 12, 31))]},
    ]
    assert [one for one in others if content(**one) == content()] == []
    before = content()
    (tmp_path / "a").write_bytes((tmp_path / "b").read_bytes())
    assert content() != before


def test_a_mailkey_must_have_2048_bits_and_a_dkim_key_1024(tmp_path: Path) -> None:
    weak = KeyFile("fwd.test", "", put(tmp_path / "weak", pem(WEAK)))
    secret = put(tmp_path / "secret", SECRET)
    assert Keys.load(srs_secret_file=secret, dkim=[weak]).dkim("fwd.test")
    with pytest.raises(KeyFileError, match="1024 bits are too few"):
        Keys.load(srs_secret_file=secret, mailkey=[weak])


# --- secrets ---


def test_secrets_are_one_a_line_in_order(tmp_path: Path) -> None:
    file = put(tmp_path / "s", b"# first mints\r\n\n  0123456789abcdef  \n#old:\nfedcba9876543210#x\n")
    assert load_secrets(file) == (b"0123456789abcdef", b"fedcba9876543210#x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no secret"),
        (b"# nothing\n", "no secret"),
        (b"0123456789abcdef\nhunter2\n", "secret 2 is shorter than 16"),
    ],
)
def test_a_file_without_good_secrets_is_refused_without_its_content(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(KeyFileError, match=words) as caught:
        load_secrets(put(tmp_path / "s", content))
    assert "hunter2" not in str(caught.value)


def test_secrets_that_others_can_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_secrets(put(tmp_path / "s", SECRET, 0o644))


def test_a_ring_without_a_secret_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no SRS secret"):
        Keys([], [], None, [])


# --- making and publishing ---


def test_what_is_made_can_be_loaded_and_is_private(tmp_path: Path) -> None:
    generate_ed25519(tmp_path / "ed")
    generate_rsa(tmp_path / "rsa")
    generate_secret(tmp_path / "secret")
    assert load(tmp_path / "ed").algorithm == "ed25519-sha256"
    big = load_key(KeyFile("fwd.test", "", tmp_path / "rsa"), least_bits=2048)
    assert big.algorithm == "rsa-sha256"
    [secret] = load_secrets(tmp_path / "secret")
    assert len(secret) >= 32
    for name in ("ed", "rsa", "secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_two_secrets_differ(tmp_path: Path) -> None:
    generate_secret(tmp_path / "a")
    generate_secret(tmp_path / "b")
    assert load_secrets(tmp_path / "a") != load_secrets(tmp_path / "b")


@pytest.mark.parametrize("make", [generate_ed25519, generate_rsa, generate_secret])
def test_an_existing_file_is_never_written_over(tmp_path: Path, make: object) -> None:
    put(tmp_path / "k", b"precious")
    assert callable(make)
    with pytest.raises(KeyFileError, match="exists already"):
        make(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == b"precious"


def test_a_key_in_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        generate_ed25519(tmp_path / "none" / "k")


def test_a_file_that_cannot_be_written_in_full_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        generate_ed25519(tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_records_carry_the_raw_ed25519_key_and_the_rsa_key_as_spki() -> None:
    ed, big = Key("fwd.test", "s", ED), Key("fwd.test", "s", RSA)
    assert base64.b64decode(public_record(ed)) == ED.public_key().public_bytes_raw()
    spki = serialization.load_der_public_key(base64.b64decode(public_record(big)))
    assert spki == RSA.public_key()
    assert dkim_record(ed) == f"v=DKIM1; k=ed25519; p={public_record(ed)}"
    assert dkim_record(big) == f"v=DKIM1; k=rsa; p={public_record(big)}"
    assert mailkey_record(ed) == f"v=mailkey1; k=ed25519; p={public_record(ed)}; o=all"
    assert mailkey_record(big, "test") == f"v=mailkey1; k=rsa; p={public_record(big)}; o=test"


def test_a_policy_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="all, some or test"):
        mailkey_record(Key("fwd.test", "", ED), "most")
