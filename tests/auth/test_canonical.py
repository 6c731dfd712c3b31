"""RFC 6376 section 3.4: the two canonical forms, against the RFC's words done literally and against dkimpy."""

from __future__ import annotations

import re
import time
from hashlib import sha256
from itertools import pairwise

import pytest
from dkim.canonicalization import Relaxed, Simple  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.auth import canonical
from forwarder.auth.canonical import BodyHash, body_hash, body_size, relaxed_body, relaxed_field, simple_body
from forwarder.model import Message
from tests.fakes import message

# Bodies are made of what matters to the two forms, so that a few dozen octets hit every edge.
PIECES = st.lists(
    st.sampled_from([b" ", b"\t", b"  ", b" \t ", b"\r\n", b"\r\n\r\n", b"a", b"b.", b" \r\n"]), max_size=40
)
BODIES = PIECES.map(b"".join)


def literally_relaxed(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4, sentence by sentence."""
    lines = body.split(b"\r\n")
    unfinished = lines.pop()
    if unfinished:
        lines.append(unfinished)
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\r\n" for line in lines)


def literally_simple(body: bytes) -> bytes:
    """RFC 6376 section 3.4.3."""
    if not body.endswith(b"\r\n"):
        body += b"\r\n"
    while body.endswith(b"\r\n\r\n"):
        body = body[:-2]
    return body


@given(BODIES)
@settings(max_examples=500)
def test_the_fast_forms_are_what_the_rfc_says(body: bytes) -> None:
    assert relaxed_body(body) == literally_relaxed(body)
    assert simple_body(body) == literally_simple(body)


@given(BODIES, st.integers(1, 7))
@settings(max_examples=300)
def test_where_a_long_body_is_cut_into_pieces_makes_no_difference(body: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canonical, "_PIECE", size)
        assert relaxed_body(body) == literally_relaxed(body)


@given(BODIES | st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"a"]), max_size=20).map(b"".join), st.data())
@settings(max_examples=300)
def test_wherever_a_body_that_arrives_is_cut_its_hash_is_the_same(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    for form, whole in (("relaxed", relaxed_body(body)), ("simple", simple_body(body))):
        one = BodyHash(form)  # type: ignore[arg-type]
        for start, end in pairwise([0, *cuts, len(body)]):
            one.update(body[start:end])
        assert one.finish() == sha256(whole).digest() + len(whole).to_bytes(8, "big")
        assert body_hash(Message(b"", b"\r\n", body, ()), form) == sha256(whole).digest()  # type: ignore[arg-type]


@given(BODIES)
@settings(max_examples=300)
def test_dkimpy_agrees_on_bodies_whose_last_line_ends(body: bytes) -> None:
    if body:
        body += b"\r\n"
    assert relaxed_body(body) == Relaxed.canonicalize_body(body)
    assert simple_body(body) == Simple.canonicalize_body(body)


@pytest.mark.parametrize(
    ("body", "relaxed", "simple"),
    [
        (b"", b"", b"\r\n"),
        (b"\r\n", b"", b"\r\n"),
        (b"\r\n\r\n\r\n", b"", b"\r\n"),
        (b" \t \r\n", b"", b" \t \r\n"),
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a ", b"a\r\n", b"a \r\n"),
        (b"a \r\n", b"a\r\n", b"a \r\n"),
        (b"a\t \r\n \r\n", b"a\r\n", b"a\t \r\n \r\n"),
        (b"  a", b" a\r\n", b"  a\r\n"),
        (b" ", b"", b" \r\n"),
        # RFC 6376 section 3.4.5
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n", b" C \r\nD \t E\r\n"),
        # A bare CR or LF is an octet like any other.
        (b"a\r\r\n", b"a\r\r\n", b"a\r\r\n"),
        (b"a\n\r\n\r\n", b"a\n\r\n", b"a\n\r\n"),
        (b"a\r\n\n", b"a\r\n\n\r\n", b"a\r\n\n\r\n"),
    ],
)
def test_edges_of_bodies(body: bytes, relaxed: bytes, simple: bytes) -> None:
    assert relaxed_body(body) == relaxed
    assert simple_body(body) == simple


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 127, 128, 4095, 4096, 4097, 65_535, 70_000])
def test_a_run_of_any_length_is_one_space(length: int) -> None:
    assert relaxed_body(b"a" + b" " * length + b"b" + b"\t" * length + b"\r\n") == b"a b\r\n"


@pytest.mark.parametrize(
    ("raw", "relaxed"),
    [
        (b"A: X\r\n", b"a:X\r\n"),
        (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
        (b"Subject:\r\n", b"subject:\r\n"),
        (b"Subject: \t \r\n", b"subject:\r\n"),
        (b"Subject:\r\n folded\r\n  twice\r\n", b"subject:folded twice\r\n"),
        (b"X-Y:a:b\r\n", b"x-y:a:b\r\n"),
        # RFC 5234 WSP is space and tab, nothing else.
        (b"X: \x0b a\x0c  b\r\n", b"x:\x0b a\x0c b\r\n"),
        (b"X: a\rb  c\r\n", b"x:a\rb c\r\n"),
    ],
)
def test_fields(raw: bytes, relaxed: bytes) -> None:
    assert relaxed_field(raw) == relaxed


@given(
    st.from_regex(rb"[!-9;-~]{1,10}", fullmatch=True),
    st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"B", b"\xc3\xa4", b":"]), max_size=30),
)
def test_dkimpy_agrees_on_fields(name: bytes, value: list[bytes]) -> None:
    raw = name + b":" + b"".join(value) + b"\r\n"
    ((canonical_name, canonical_value),) = Relaxed.canonicalize_headers([(name, b"".join(value) + b"\r\n")])
    assert relaxed_field(raw) == canonical_name + b":" + canonical_value


def test_one_pass_serves_every_check_and_signature() -> None:
    one = message("From: a@b.example\n\nHello  \n\n")
    assert body_hash(one, "relaxed") == sha256(b"Hello\r\n").digest()
    assert list(one.body_hashes) == [("relaxed", None)]
    one.body_hashes[("relaxed", None)] = b"remembered".ljust(32) + (7).to_bytes(8, "big")
    assert body_hash(one, "relaxed") == b"remembered".ljust(32)
    assert body_size(one, "relaxed") == 7


@given(BODIES)
def test_the_size_is_that_of_the_form(body: bytes) -> None:
    one = Message(b"", b"\r\n", body, ())
    assert body_size(one, "relaxed") == len(relaxed_body(body))
    assert body_size(one, "simple") == len(simple_body(body))
    assert body_hash(one, "simple") == sha256(simple_body(body)).digest()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x\r\n" + b"\r\n" * 500_000, id="blank lines at the end"),
        pytest.param(b"x\r\n" + b" \t\r\n" * 250_000 + b"x\r\n", id="lines of white space"),
        pytest.param(b" " * 1_000_000, id="nothing but spaces"),
        pytest.param((b" " * 63 + b"a") * 15_000, id="runs just below the longest that is replaced at once"),
        pytest.param((b" " * 8191 + b"\r\n") * 120, id="long runs"),
        pytest.param(b"\t " * 500_000, id="one line of tabs and spaces"),
        pytest.param(b"\r\n \r\n" * 200_000, id="blank lines of two kinds"),
    ],
)
def test_a_megabyte_of_hostile_body_costs_no_more_than_a_few_passes(body: bytes) -> None:
    start = time.process_time()
    relaxed_body(body)
    simple_body(body)
    assert time.process_time() - start < 0.25
