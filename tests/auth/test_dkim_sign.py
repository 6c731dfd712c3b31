"""RFC 6376 section 5: what our DKIM-Signature covers and how it is written."""

from __future__ import annotations

from collections.abc import Sequence

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth import canonical
from forwarder.auth.canonical import body_hash
from forwarder.auth.dkim import build_dkim_signature, verify_dkim
from forwarder.auth.signed import sign_now
from forwarder.auth.tags import parse_tags
from forwarder.mail.header import parse_message
from forwarder.model import Message, Result
from tests.auth.signers import NOW, Signer, ed25519, rsa, run, zone
from tests.fakes import FakeResolver, message

MESSAGE = message(
    """\
    Received: from a.example by b.example; Sat, 3 Feb 2024 04:05:00 +0000
    From: alice@signer.example
    To: bob@fwd.example
    Subject: hello
    References: <1@signer.example>
    X-Other: not signed

    Hi Bob.
    """.replace("    ", "")
)


def build(one: Message, signer: Signer, **options: object) -> bytes:
    return sign_now(build_dkim_signature(one.fields, body_hash(one, "relaxed"), signer, now=NOW, **options))  # type: ignore[arg-type]


def tags(field: bytes) -> dict[bytes, bytes]:
    return parse_tags(parse_message(field).fields[0].value)


def raw(one: Message) -> bytes:
    return one.header + one.separator + one.body


def verified(field: bytes, one: Message, signer: Signer) -> Sequence[Result]:
    checks = run(verify_dkim(FakeResolver(zone(signer)), parse_message(field + raw(one)), author_domain=None, now=NOW))
    return [check.result for check in checks]


@pytest.mark.parametrize("signer", [rsa(), ed25519()], ids=["rsa", "ed25519"])
def test_what_we_sign_verifies_here_and_in_dkimpy(signer: Signer) -> None:
    field = build(MESSAGE, signer)
    assert verified(field, MESSAGE, signer) == [Result.PASS]
    assert dkim.verify(field + raw(MESSAGE), dnsfunc=lambda name, timeout: signer.record.encode())


def test_the_tags_are_these() -> None:
    found = tags(build(MESSAGE, rsa(), expires_in=3600))
    assert list(found) == [b"v", b"a", b"c", b"d", b"s", b"t", b"x", b"h", b"bh", b"b"]
    assert found[b"c"] == b"relaxed/relaxed"
    assert int(found[b"t"]) == NOW.timestamp()
    assert int(found[b"x"]) == NOW.timestamp() + 3600
    assert b"l" not in found


@pytest.mark.parametrize(
    "name", ["From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"]
)
def test_nobody_can_put_one_more_of_these_on_top(name: str) -> None:
    """RFC 6376 section 8.15: each is in h= once more than in the header."""
    field = build(MESSAGE, rsa())
    added = f"{name}: added\r\n".encode()
    assert verified(added + field, MESSAGE, rsa()) == [Result.FAIL]


def test_other_fields_are_signed_as_often_as_they_are_there() -> None:
    names = b"".join(tags(build(MESSAGE, rsa()))[b"h"].split()).split(b":")
    assert names.count(b"references") == 1
    assert names.count(b"from") == 2
    assert names.count(b"cc") == 1
    assert not {b"received", b"x-other", b"in-reply-to", b"dkim-signature"} & set(names)


def test_the_caller_may_choose_the_fields() -> None:
    assert tags(build(MESSAGE, rsa(), headers=[b"From", b"x-other"]))[b"h"] == b"from:x-other"


def test_lines_are_short_where_they_can_be() -> None:
    for line in build(MESSAGE, rsa()).split(b"\r\n"):
        assert len(line) <= 78


def test_a_long_domain_is_not_cut() -> None:
    signer = Signer(".".join(["a" * 60] * 4), "r", rsa().private)
    field = build(MESSAGE, signer)
    assert tags(field)[b"d"].decode() == signer.domain
    assert verified(field, MESSAGE, signer) == [Result.PASS]


def test_three_signatures_make_each_field_relaxed_once() -> None:
    canonical._relaxed.clear()
    for signer in (rsa(), ed25519(), rsa(selector="other")):
        build(MESSAGE, signer)
    # The four signed fields. The three signatures are nobody else's, and are not kept.
    assert len(canonical._relaxed) == 4


@given(
    names=st.lists(st.sampled_from(["To", "Cc", "Subject", "List-Id", "Sender", "Content-Type"]), max_size=12),
    headers=st.none() | st.lists(st.sampled_from([b"from", b"To", b"subject", b"absent"]), max_size=60),
)
@settings(max_examples=100)
def test_whatever_is_there_our_signature_verifies(names: list[str], headers: list[bytes] | None) -> None:
    one = message("From: a@b.example\n" + "".join(f"{name}: {at}\n" for at, name in enumerate(names)) + "\nbody\n")
    chosen = [*headers, b"from"] if headers is not None else None
    assert verified(build(one, ed25519(), headers=chosen), one, ed25519()) == [Result.PASS]
