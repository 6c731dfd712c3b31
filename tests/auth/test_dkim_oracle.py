"""An independent judge: dkimpy and we must agree on generated messages, each on what the other signed.

``ORACLE_EXAMPLES=5000`` runs as many messages as the issue asks for; the default keeps the run short.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.auth.canonical import body_hash
from forwarder.auth.dkim import build_dkim_signature, verify_dkim
from forwarder.auth.signed import sign_now
from forwarder.mail.header import parse_message
from forwarder.model import Result
from tests.auth.signers import NOW, Signer, ed25519, rsa, run, zone
from tests.fakes import FakeResolver

#: dkimpy signs with the time that it is.
LATER = datetime(2100, 1, 1, tzinfo=UTC)
EXAMPLES = int(os.environ.get("ORACLE_EXAMPLES", "100"))
# 1,024 bits: dkimpy signs with Python integers.
SIGNERS = {"rsa": rsa(bits=1024), "ed25519": ed25519()}

WORD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], exclude_characters="\x85"),
    min_size=1,
    max_size=12,
).map(lambda text: text.encode())
LONG_WORD = st.integers(70, 1200).map(lambda size: b"x" * size)
SPACE = st.sampled_from([b" ", b"  ", b"\t", b" \t "])
FOLD = st.sampled_from([b"\r\n ", b"\r\n\t", b" \r\n  ", b"\t\r\n\t\t"])
VALUE = st.lists(WORD | SPACE | FOLD, max_size=12).map(b"".join)
NAME = st.sampled_from(
    ["To", "to", "Cc", "SUBJECT", "Subject", "Date", "Message-ID", "X-Test", "Received", "Content-Type", "Reply-To"]
)


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.tuples(NAME, VALUE), max_size=8))
    rest = [name.encode() + b":" + value + b"\r\n" for name, value in lines]
    rest.insert(draw(st.integers(0, len(rest))), b"From:" + draw(SPACE) + b"a@signer.example\r\n")
    return b"".join(rest)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.lists(WORD | SPACE | LONG_WORD, max_size=5).map(b"".join), max_size=10))
    blank = draw(st.integers(0, 4))
    body = b"".join(line + b"\r\n" for line in lines) + b"\r\n" * blank
    if body and draw(st.booleans()):
        # A last line without an end, but not without text: dkimpy keeps white space there, which RFC 6376 section 3.4.4
        # ignores at the end of every line.
        body += b"last"
    return draw(fields()) + b"\r\n" + body


def judge(raw: bytes, signer: Signer) -> bool:
    return bool(dkim.verify(raw, dnsfunc=lambda name, timeout: signer.record.encode()))


def ours(raw: bytes, signer: Signer) -> Result:
    (check,) = run(verify_dkim(FakeResolver(zone(signer)), parse_message(raw), author_domain=None, now=LATER))
    return check.result


@pytest.mark.parametrize("kind", SIGNERS)
@given(raw=messages())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_dkimpy_verifies_what_we_sign(kind: str, raw: bytes) -> None:
    signer, message = SIGNERS[kind], parse_message(raw)
    field = sign_now(build_dkim_signature(message.fields, body_hash(message, "relaxed"), signer, now=NOW))
    assert judge(field + raw, signer)
    assert ours(field + raw, signer) is Result.PASS


@pytest.mark.parametrize("kind", SIGNERS)
@given(
    raw=messages(),
    forms=st.tuples(st.sampled_from([b"simple", b"relaxed"]), st.sampled_from([b"simple", b"relaxed"])),
    names=st.none() | st.lists(st.sampled_from([b"to", b"Subject", b"reply-to", b"absent", b"x-test"]), max_size=6),
)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_we_verify_what_dkimpy_signs(
    kind: str, raw: bytes, forms: tuple[bytes, bytes], names: list[bytes] | None
) -> None:
    signer = SIGNERS[kind]
    field = dkim.sign(
        raw,
        signer.selector.encode(),
        signer.domain.encode(),
        signer.pem,
        canonicalize=forms,
        signature_algorithm=signer.algorithm.encode(),
        include_headers=[b"from", *names] if names is not None else None,
    )
    assert ours(field + raw, signer) is Result.PASS


@given(raw=messages(), at=st.integers(0, 5000), octet=st.sampled_from(b" \tax.;=:"))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_we_agree_on_changed_messages(raw: bytes, at: int, octet: int) -> None:
    """One octet changed in what was signed: pass for both or for neither."""
    signer, message = SIGNERS["rsa"], parse_message(raw)
    field = sign_now(
        build_dkim_signature(
            message.fields, body_hash(message, "relaxed"), signer, now=NOW, headers=[one.name for one in message.fields]
        )
    )
    start = len(message.header) + len(message.separator)
    changed = bytearray(raw)
    where = start + at % len(message.body) if message.body else 0
    if not message.body or changed[where] in b"\r\n":
        return
    changed[where] = octet
    assert (ours(field + bytes(changed), signer) is Result.PASS) == judge(field + bytes(changed), signer)
