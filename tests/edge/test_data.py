"""Is a message that is looked at as it comes the same as one that is looked at when it is here?"""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.canonical import body_hash, relaxed_body, simple_body
from forwarder.edge.data import MAX_LINE, STANDARD_LINE, BadOctets, Incoming, find_end, read_whole, refuse_header
from forwarder.mail.header import parse_content
from forwarder.model import Content
from forwarder.smtp import reply

HEADER = b"From: a@b.example\r\nDKIM-Signature: v=1; c=relaxed; d=b.example\r\n"
_WORDS = [b".", b"..", b"\r\n", b"\r\n.", b"\r\n\r\n", b"a", b" ", b"  ", b"\t", b"From: a\r\n"]
GOOD = st.lists(st.sampled_from(_WORDS), max_size=30).map(lambda parts: HEADER + b"".join(parts) + b"\r\n")
ANY = st.lists(st.sampled_from([*_WORDS, b"\r", b"\n", b"\0"]), max_size=20).map(b"".join)


def in_blocks(raw: bytes, cuts: list[int], *, stuffed: bool = True) -> Content | BadOctets:
    incoming = Incoming(stuffed=stuffed)
    at = 0
    for cut in [*sorted(cuts), len(raw)]:
        incoming.take(raw[at:cut])
        at = max(at, cut)
    return incoming.finish()


def same(one: Content | BadOctets, other: Content | BadOctets) -> bool:
    if isinstance(one, BadOctets) or isinstance(other, BadOctets):
        # Which of several faults is named depends on which comes first.
        return isinstance(one, BadOctets) and isinstance(other, BadOctets)
    return (one.header, one.separator, one.body) == (other.header, other.separator, other.body)


@given(st.one_of(GOOD, ANY), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_wherever_it_is_cut_it_is_the_same_message(raw: bytes, cuts: list[int], stuffed: bool) -> None:
    cuts = [min(cut, len(raw)) for cut in cuts]
    assert same(in_blocks(raw, cuts, stuffed=stuffed), read_whole(raw, stuffed=stuffed))


@given(GOOD, st.lists(st.integers(0, 200), max_size=8))
def test_what_was_hashed_on_the_way_is_what_would_be_hashed_at_the_end(raw: bytes, cuts: list[int]) -> None:
    raw = HEADER + b"\r\n" + raw
    content = in_blocks(raw, [min(cut, len(raw)) for cut in cuts])
    assert isinstance(content, Content)
    # The signature's c= has no second half, and so its body is in the simple form (RFC 6376 section 3.5).
    assert set(content.body_hashes) == {("relaxed", None), ("simple", None)}
    for form, whole in (("relaxed", relaxed_body(content.body)), ("simple", simple_body(content.body))):
        digest = hashlib.sha256(whole).digest()
        assert content.body_hashes[form, None] == digest + len(whole).to_bytes(8, "big")
        assert body_hash(parse_content(content), form) == digest  # type: ignore[arg-type]


def test_without_a_signature_over_the_simple_form_only_the_relaxed_is_hashed() -> None:
    content = in_blocks(b"From: a@b.example\r\nDKIM-Signature: c=relaxed/relaxed; v=1\r\n\r\nx\r\n", [3])
    assert isinstance(content, Content)
    assert set(content.body_hashes) == {("relaxed", None)}


@pytest.mark.parametrize(
    ("cut", "bad"),
    [
        (b"x\r|\ny", None),
        (b"x\r|y", reply.BARE_NEWLINE),
        (b"x|\ny", reply.BARE_NEWLINE),
        (b"x|\0", reply.NUL_IN_MESSAGE),
    ],
    ids=repr,
)
def test_a_fault_across_two_blocks_is_found(cut: bytes, bad: object) -> None:
    first, _, second = cut.partition(b"|")
    incoming = Incoming(stuffed=True)
    for block in (HEADER + b"\r\n" + first, second + b"\r\n"):
        incoming.take(block)
    found = incoming.finish()
    assert (found.reply if isinstance(found, BadOctets) else None) is bad


def test_a_line_over_many_blocks_is_as_long_as_its_parts() -> None:
    for extra, expected in ((0, Content), (1, BadOctets)):
        raw = HEADER + b"\r\n" + b"x" * (MAX_LINE - 2 + extra) + b"\r\nmore\r\n"
        assert isinstance(in_blocks(raw, list(range(0, len(raw), 1000))), expected)
        assert isinstance(read_whole(raw, stuffed=True), expected)


def test_once_it_is_refused_nothing_of_it_is_kept() -> None:
    incoming = Incoming(stuffed=True)
    incoming.take(HEADER + b"\r\n" + b"x\n" * 1000)
    assert incoming.refused == BadOctets(reply.BARE_NEWLINE)
    incoming.take(b"y" * 1000)
    assert incoming.size == len(HEADER) + 2 + 2000 + 1000
    assert incoming.finish() == BadOctets(reply.BARE_NEWLINE)


@given(
    st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n", b"\r\n."]), max_size=30).map(b"".join),
    st.integers(0, 60),
)
def test_the_end_is_found_wherever_the_search_goes_on(data: bytes, start: int) -> None:
    start = min(start, len(data))
    whole = data.find(b"\r\n.\r\n")
    if 0 <= whole < start - 4:
        return  # then it was found before
    assert find_end(data, start, begun=True) == (whole + 2 if whole >= 0 else -1)


@pytest.mark.parametrize(("line", "taken"), [(b"x" * 998, True), (b"x" * 999, False), (b".." + b"x" * 997, True)])
@pytest.mark.parametrize("cut", [None, 1, 500, 700])
def test_where_only_lines_of_the_standard_are_taken_its_998_octets_are(
    line: bytes, taken: bool, cut: int | None
) -> None:
    raw = HEADER + b"\r\n" + line + b"\r\n"
    if cut is None:
        found = read_whole(raw, stuffed=True, max_line=STANDARD_LINE)
    else:
        incoming = Incoming(stuffed=True, max_line=STANDARD_LINE)
        for at in range(0, len(raw), cut):
            incoming.take(raw[at : at + cut])
        found = incoming.finish()
    assert isinstance(found, Content) is taken


@pytest.mark.parametrize(("folds", "looked_into"), [(10, True), (60_000, False)])
def test_a_header_that_is_too_large_is_not_looked_into_before_it_is_refused(folds: int, looked_into: bool) -> None:
    # One field all the same: its folds are what reading takes its time for.
    incoming = Incoming(stuffed=True, max_header=(65536, 100))
    incoming.take(HEADER + b"X: y\r\n" + b" \r\n" * folds + b"\r\nbody\r\n")
    found = incoming.finish()
    assert isinstance(found, Content)
    assert found.body == b"body\r\n"
    assert bool(found.body_hashes) is looked_into
    assert (refuse_header(found.header, 65536, 100) is None) is looked_into
