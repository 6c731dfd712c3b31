"""RFC 8617: chains as they arrive, and the set that we add."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth.arc import build_arc_set, key_names, verify_arc
from forwarder.auth.arc.chain import MAX_SETS
from forwarder.auth.arc.seal import _message_template
from forwarder.auth.canonical import body_hash
from forwarder.auth.signed import sign_now
from forwarder.auth.tags import parse_tags
from forwarder.auth.template import Tag, Template, lay_out
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import ArcCheck, Message, Result
from tests.auth.signers import NOW, AgingResolver, Signer, cpu_seconds, ed25519, rsa, run, zone
from tests.fakes import FakeResolver, Zone

RAW = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=author.example\r\n"
    b"From: alice@author.example\r\nTo: list@one.example\r\nSubject: hello\r\n\r\nHi all.\r\n"
)
RESULTS = (
    b" one.example; spf=pass (sender (really) is\r\n\tpermitted) smtp.mailfrom=alice@author.example;\r\n dkim=pass\r\n"
)
KEY = rsa("one.example", bits=1024)
OTHER = rsa("two.example", bits=1024, number=1)
ZONE = zone(KEY, OTHER)


def verify(raw: bytes, zones: Zone = ZONE) -> ArcCheck:
    return run(verify_arc(FakeResolver(zones), parse_message(raw), now=NOW))


def seal(raw: bytes, key: Signer = KEY, *, chain: ArcCheck | None = None, results: bytes = RESULTS) -> bytes:
    """The message with one more set, or as it was."""
    message = parse_message(raw)
    fields = sign_now(
        build_arc_set(
            message.fields,
            body_hash(message, "relaxed"),
            chain if chain is not None else verify(raw),
            authres_value=results,
            key=key,
            now=NOW,
        )
    )
    return b"".join(fields or ()) + raw


def chain_of(number: int, raw: bytes = RAW) -> bytes:
    check = ArcCheck(Result.NONE)
    for sets in range(number):
        raw = seal(raw, chain=check)
        check = ArcCheck(Result.PASS, sets + 1)
    return raw


def tags(raw: bytes, name: bytes) -> dict[bytes, bytes]:
    field = parse_message(raw).first(name)
    assert field is not None
    return parse_tags(field.value)


def replaced(raw: bytes, before: bytes, after: bytes) -> bytes:
    assert before in raw
    return raw.replace(before, after, 1)


ONE, TWO, THREE = chain_of(1), chain_of(2), chain_of(3)

# --- whole chains -----------------------------------------------------------------------------------------------------


def test_no_set_is_no_chain() -> None:
    resolver = FakeResolver()
    assert run(verify_arc(resolver, parse_message(RAW), now=NOW)) == ArcCheck(Result.NONE)
    assert resolver.queries == []


@pytest.mark.parametrize("number", [1, 2, 3, MAX_SETS])
def test_a_whole_chain_passes(number: int) -> None:
    assert verify(chain_of(number)) == ArcCheck(Result.PASS, number, 0, sealers=("one.example",) * number)


def test_sealers_are_told_from_the_first_on() -> None:
    assert verify(seal(seal(RAW), OTHER)).sealers == ("one.example", "two.example")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_dkimpy_agrees_that_our_chain_is_whole(number: int) -> None:
    records = {f"{one.key_name}.".encode(): one.record.encode() for one in (KEY, OTHER)}
    status, sets, reason = dkim.arc_verify(chain_of(number), dnsfunc=lambda name, timeout: records[name])
    assert (status, len(sets), reason) == (b"pass", number, "success")


def test_dkimpy_seals_and_we_agree() -> None:
    raw = RAW
    for hop, state in ((b"hop1", b"none"), (b"hop2", b"pass"), (b"hop3", b"pass")):
        raw = b"Authentication-Results: " + hop + b"; arc=" + state + b"; spf=pass smtp.mailfrom=a@b.example\r\n" + raw
        fields = dkim.arc_sign(
            raw, KEY.selector.encode(), KEY.domain.encode(), KEY.pem, hop, include_headers=[b"from", b"to"]
        )
        raw = b"".join(fields) + raw
    assert verify(raw) == ArcCheck(Result.PASS, 3, 0, sealers=("one.example",) * 3)


def test_sets_may_stand_in_any_order_among_other_fields() -> None:
    message = parse_message(TWO)
    header = b"".join(field.raw for field in reversed(message.fields))
    assert verify(header + b"\r\n" + message.body).result is Result.PASS


@pytest.mark.parametrize("prefix", [b"i=1;", b" i = 1 ;", b"\r\n\ti=1 ;", b" (a comment) i=1 (one);", b"i=01;"])
def test_the_results_field_begins_with_its_instance(prefix: bytes) -> None:
    """RFC 8617 section 4.2.1 allows comments and folds there; whoever wrote it sealed it so."""
    check = verify(replaced(ONE, b"ARC-Authentication-Results: i=1;", b"ARC-Authentication-Results:" + prefix))
    assert (check.result, check.reason) in [(Result.FAIL, "arc-seal does not match"), (Result.PASS, None)]


def test_where_the_message_was_changed_last_is_told() -> None:
    """RFC 8617 section 5.2 step 5: a list changes the subject and seals what it made of it."""
    changed = replaced(ONE, b"Subject: hello", b"Subject: [list] hello")
    broken = verify(changed)
    assert (broken.result, broken.reason) == (Result.FAIL, "arc-message-signature does not match")
    # The list verified before it changed anything.
    message = parse_message(changed)
    fields = sign_now(
        build_arc_set(
            message.fields, body_hash(message, "relaxed"), verify(ONE), authres_value=RESULTS, key=OTHER, now=NOW
        )
    )
    assert fields is not None
    resealed = b"".join(fields) + changed
    assert verify(resealed).oldest_pass == 2
    assert verify(seal(resealed)).oldest_pass == 2


# --- broken chains ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(RAW.replace(b"Hi", b"Ho").join([ONE[: ONE.index(b"DKIM-Sig")], b""]), "body hash", id="the body"),
        pytest.param(replaced(ONE, b"alice@", b"mallory@"), "arc-seal does not match", id="the results"),
        pytest.param(
            replaced(ONE, b"From: alice", b"From: mallory"), "arc-message-signature does", id="a signed field"
        ),
        pytest.param(replaced(TWO, b"cv=pass", b"cv=none"), "arc-seal i=2 says cv=none", id="a second first set"),
        pytest.param(replaced(ONE, b"cv=none", b"cv=pass"), "arc-seal i=1 says cv=pass", id="a first set that goes on"),
        pytest.param(replaced(ONE, b"cv=none", b"cv=NONE"), "arc-seal: unknown cv=", id="cv in capitals"),
        pytest.param(
            replaced(TWO, b"cv=pass", b"cv=fail"), "arc-seal i=2 says cv=fail", id="it says itself that it failed"
        ),
        pytest.param(replaced(ONE, b"ARC-Seal: a=", b"ARC-Seal: h=from; a="), "arc-seal: h= does", id="a seal with h="),
        pytest.param(replaced(ONE, b"ARC-Seal:", b"X-Seal:"), "set i=1 is not complete", id="no seal"),
        pytest.param(
            replaced(ONE, b"ARC-Message-Signature:", b"X:"), "set i=1 is not complete", id="no message signature"
        ),
        pytest.param(replaced(ONE, b"ARC-Authentication-Results:", b"X:"), "set i=1 is not complete", id="no results"),
        pytest.param(replaced(ONE, b"Results: i=1;", b"Results: i=0;"), "without an instance", id="instance 0"),
        pytest.param(replaced(ONE, b"Results: i=1;", b"Results: i=51;"), "without an instance", id="instance 51"),
        pytest.param(replaced(ONE, b"Results: i=1;", b"Results: i=x;"), "without an instance", id="instance x"),
        pytest.param(
            replaced(ONE, b"Results: i=1;", b"Results: one; i=1;"), "without an instance", id="instance later"
        ),
        pytest.param(replaced(ONE, b"Results: i=1;", b"Results: i=1 one"), "without an instance", id="no semicolon"),
        pytest.param(replaced(ONE, b"i=1; s=", b"s="), "without an instance", id="a seal without an instance"),
        pytest.param(b"ARC-Authentication-Results: x\r\n" + RAW, "without an instance", id="one field of no set"),
        pytest.param(b"ARC-Authentication-Results: i=1; x\r\n" + ONE, "i=1 twice", id="two results"),
        pytest.param(ONE[: ONE.index(b"ARC-Message")] + ONE, "arc-seal i=1 twice", id="two seals"),
        pytest.param(THREE[: THREE.index(b"ARC-Seal", 9)] + ONE, "an instance is missing", id="set 2 is missing"),
        pytest.param(replaced(ONE, b"a=rsa-sha256", b"a=rsa-sha1"), "arc-seal: unknown a=", id="a seal with SHA-1"),
        pytest.param(
            replaced(ONE, b"a=rsa-sha256", b"a=ed25519-sha256"), "arc-seal: unknown a=", id="a seal with ed25519"
        ),
        pytest.param(replaced(ONE, b"t=1706", b"t=x"), "arc-seal: t= is no number", id="no time"),
    ],
)
def test_a_broken_chain_fails(raw: bytes, reason: str) -> None:
    check = verify(raw)
    assert check.result is Result.FAIL
    assert check.oldest_pass is None
    assert check.reason is not None
    assert reason in check.reason


def test_the_message_signature_must_not_sign_seals() -> None:
    """RFC 8617 section 4.1.2."""
    message = parse_message(RAW)
    fields = sign_now(
        build_arc_set(
            message.fields,
            body_hash(message, "relaxed"),
            ArcCheck(Result.NONE),
            authres_value=RESULTS,
            key=KEY,
            now=NOW,
            headers=[b"from", b"arc-seal"],
        )
    )
    assert fields is not None
    assert verify(b"".join(fields) + RAW).reason == "arc-message-signature signs arc-seal"


def test_a_message_signature_without_c_is_relaxed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike DKIM (RFC 6376 section 3.5); the suite of ARC's own authors has it so."""

    def without_c(name: bytes, before: Iterable[Tag], after: Iterable[Tag] = ()) -> Template:
        return lay_out(name, before, [tag for tag in after if tag[0] != b"c"])

    monkeypatch.setattr("forwarder.auth.arc.seal.lay_out", without_c)
    monkeypatch.setattr("forwarder.auth.arc.seal._message_template", _message_template.__wrapped__)
    raw = seal(RAW.replace(b"hello", b"hello  there"))
    assert b"c" not in tags(raw, b"arc-message-signature")
    assert verify(raw.replace(b"hello  there", b"hello there")).result is Result.PASS


@pytest.mark.parametrize(
    ("records", "result", "reason"),
    [
        ([], Result.FAIL, "arc-message-signature: no key record"),
        (["v=DKIM1; p="], Result.FAIL, "arc-message-signature: key revoked"),
        ([rsa(number=1).record], Result.FAIL, "arc-message-signature does not match"),
        ([ed25519().record], Result.FAIL, "arc-message-signature: the key is not for this algorithm"),
        ("SERVFAIL", Result.TEMPERROR, "arc-message-signature: no answer from the DNS for the key"),
    ],
)
def test_a_key_that_cannot_be_had_breaks_the_chain_but_a_silent_dns_does_not(
    records: list[str] | str, result: Result, reason: str
) -> None:
    check = verify(ONE, {KEY.key_name: {"TXT": records}})
    assert (check.result, check.reason, check.sealers) == (result, reason, ("one.example",))


def test_a_replaced_key_is_found_by_one_fresh_look_up() -> None:
    resolver = AgingResolver(zone(rsa("one.example", number=5)), ZONE, age=61)
    assert run(verify_arc(resolver, parse_message(TWO), now=NOW)).result is Result.PASS
    assert resolver.fresh_queries == [KEY.key_name]


# --- sealing ----------------------------------------------------------------------------------------------------------


def fields_of(raw: bytes) -> list[bytes]:
    return [one.name for one in parse_message(raw).fields]


def test_the_set_goes_on_top_in_the_order_seal_signature_results() -> None:
    assert fields_of(ONE)[:3] == [b"arc-seal", b"arc-message-signature", b"arc-authentication-results"]
    assert tags(ONE, b"arc-seal")[b"cv"] == b"none"
    assert tags(TWO, b"arc-seal")[b"cv"] == b"pass"
    assert tags(TWO, b"arc-seal")[b"i"] == b"2"


def test_results_are_kept_as_they_are_with_their_comments() -> None:
    field = parse_message(ONE).first(b"arc-authentication-results")
    assert field is not None
    assert field.raw == b"ARC-Authentication-Results: i=1; " + RESULTS.strip() + b"\r\n"


def test_the_message_signature_covers_dkim_signatures_but_no_arc_field_and_no_results() -> None:
    names = tags(seal(b"Authentication-Results: one.example; none\r\n" + TWO), b"arc-message-signature")[b"h"]
    signed = set(b"".join(names.split()).split(b":"))
    assert {b"from", b"dkim-signature"} <= signed
    assert not signed & {
        b"arc-seal",
        b"arc-message-signature",
        b"arc-authentication-results",
        b"authentication-results",
    }


def test_a_failed_chain_is_sealed_as_failed_over_our_own_set_alone() -> None:
    """RFC 8617 section 5.1.2: as if this set was the only one; what came before says nothing any more."""
    broken = replaced(TWO, b"Hi all", b"Ho all")
    sealed = seal(broken)
    assert tags(sealed, b"arc-seal")[b"cv"] == b"fail"
    assert tags(sealed, b"arc-seal")[b"i"] == b"3"
    assert verify(sealed) == ArcCheck(Result.FAIL, 3, reason="arc-seal i=3 says cv=fail")
    # The seal itself is a good one when nothing but its own set is looked at.
    alone = sealed[: sealed.index(b"ARC-Seal", 9)] + broken[broken.index(b"DKIM-Signature") :]
    renumbered = b"".join(field.raw for field in parse_message(alone).fields if field.name.startswith(b"arc-"))
    assert _seal_is_good(renumbered)


def _seal_is_good(header: bytes) -> bool:
    from forwarder.auth.arc.chain import ArcSet
    from forwarder.auth.arc.verify import _seal_digests
    from forwarder.auth.publickey import verify_digest
    from forwarder.auth.tags import parse_base64

    fields = {one.name: one for one in parse_message(header).fields}
    seal_field = fields[b"arc-seal"]
    only = ArcSet(fields[b"arc-authentication-results"], fields[b"arc-message-signature"], seal_field, {}, {})
    (digest,) = _seal_digests([only])
    return verify_digest(KEY.private.public_key(), parse_base64(parse_tags(seal_field.value), b"b"), digest)


def test_nothing_is_added_to_a_chain_that_says_it_failed() -> None:
    failed = seal(replaced(ONE, b"Hi all", b"Ho all"))
    assert seal(failed) == failed


def test_there_is_no_51st_set() -> None:
    full = chain_of(MAX_SETS)
    assert verify(full).result is Result.PASS
    assert seal(full) == full
    assert seal(replaced(full, b"Hi", b"Ho")) == replaced(full, b"Hi", b"Ho")


def test_a_chain_of_51_sets_fails_and_stays_as_it_is() -> None:
    full = chain_of(MAX_SETS)
    more = b"".join(one.raw.replace(b"i=50;", b"i=51;") for one in parse_message(full).fields[:3])
    assert verify(more + full).result is Result.FAIL
    assert seal(more + full) == more + full


def test_a_chain_that_could_not_be_checked_is_left_alone() -> None:
    """Neither cv=pass nor cv=fail would be true, and without our set the next hop can still find out."""
    assert seal(ONE, chain=ArcCheck(Result.TEMPERROR, 1)) == ONE


def test_a_result_that_belongs_to_other_fields_is_not_sealed() -> None:
    assert seal(RAW, chain=ArcCheck(Result.PASS, 1)) == RAW
    assert seal(ONE, chain=ArcCheck(Result.NONE)) == ONE
    assert seal(replaced(ONE, b"ARC-Seal:", b"X-Seal:"), chain=ArcCheck(Result.PASS, 1)).startswith(b"X-Seal:")


def test_a_broken_header_without_any_instance_gets_the_first_set() -> None:
    sealed = seal(b"ARC-Seal: i=0; cv=none\r\n" + RAW)
    assert tags(sealed, b"arc-seal")[b"cv"] == b"fail"
    assert tags(sealed, b"arc-seal")[b"i"] == b"1"


def test_a_key_that_arc_does_not_know_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="rsa-sha256"):
        seal(RAW, ed25519())


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_50_sets_of_50_sealers_cost_ten_questions() -> None:
    raw, check = RAW, ArcCheck(Result.NONE)
    signers = [rsa(f"hop{number}.example", bits=1024) for number in range(MAX_SETS)]
    for number, signer in enumerate(signers, 1):
        raw = seal(raw, signer, chain=check)
        check = ArcCheck(Result.PASS, number)
    resolver = FakeResolver(zone(*signers))
    check, seconds = cpu_seconds(verify_arc(resolver, parse_message(raw), now=NOW))
    assert (check.result, check.reason) == (Result.FAIL, "arc-seal: too many keys to look up")
    assert len(resolver.queries) == 10
    assert seconds < 0.25


def test_50_good_sets_are_bounded() -> None:
    message = parse_message(chain_of(MAX_SETS, RAW + b"text\r\n" * 20_000))
    resolver = FakeResolver(ZONE)
    check, seconds = cpu_seconds(verify_arc(resolver, message, now=NOW))
    assert check.result is Result.PASS
    assert len(resolver.queries) == 1
    assert seconds < 0.25


def test_50_sets_with_the_largest_fields_are_bounded() -> None:
    comment = b" one.example; spf=pass (" + b"a " * 2000 + b")"
    raw, check = RAW, ArcCheck(Result.NONE)
    for number in range(1, MAX_SETS + 1):
        raw = seal(raw, chain=check, results=comment)
        check = ArcCheck(Result.PASS, number)
    found, seconds = cpu_seconds(verify_arc(FakeResolver(ZONE), parse_message(raw), now=NOW))
    assert found.result is Result.PASS
    assert seconds < 0.25


def test_the_names_to_look_up_at_once_are_those_of_the_newest_seals() -> None:
    assert key_names(parse_message(seal(seal(RAW), OTHER))) == [OTHER.key_name, KEY.key_name]
    assert key_names(parse_message(RAW)) == []
    assert key_names(parse_message(b"ARC-Seal: x\r\n" + RAW)) == []


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_chain_never_raises_and_never_passes_with_other_content(data: st.DataObject) -> None:
    damaged = bytearray(TWO)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = parse_message(bytes(damaged))
    except MalformedMessage:
        return
    check = run(verify_arc(FakeResolver(ZONE), message, now=NOW))
    if check.result is Result.PASS:
        assert _text(message) == _text(parse_message(TWO))
    sign_now(build_arc_set(message.fields, bytes(32), check, authres_value=RESULTS, key=KEY, now=NOW))


def _text(message: Message) -> list[bytes]:
    fields = [b"".join(one.raw.split()).lower() for one in message.fields if one.name in (b"from", b"to", b"subject")]
    return [*fields, b" ".join(message.body.split())]


def test_the_clock_is_the_given_one() -> None:
    sealed = tags(ONE, b"arc-seal")
    assert datetime.fromtimestamp(int(sealed[b"t"]), UTC) == NOW.replace(microsecond=0)
    assert timedelta(0) <= NOW - datetime.fromtimestamp(int(sealed[b"t"]), UTC) < timedelta(seconds=1)
