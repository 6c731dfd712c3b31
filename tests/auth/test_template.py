"""A template of a signature field, filled, is the field that is written tag by tag; in both of its forms."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.canonical import relax_field
from forwarder.auth.template import Tag, Template, base64_lines, fold_list, gap, gaps, lay_out

_TEXT = st.text(string.ascii_letters + string.digits + "%+/=.:-", min_size=1, max_size=90).map(str.encode)
_NAMES = st.sampled_from([b"v", b"a", b"c", b"d", b"s", b"t", b"x", b"h", b"bh", b"mf", b"rt"])
#: A tag, and whether it is a gap.
_TAGS = st.lists(st.tuples(st.tuples(_NAMES, _TEXT), st.booleans()), max_size=8)

_Told = list[tuple[Tag, bool]]


def _tags(told: _Told) -> list[Tag]:
    return [(name, gap(len(text)) if is_gap else text) for (name, text), is_gap in told]


def _written(told: _Told) -> list[Tag]:
    return [one for one, _ in told]


def _values(told: _Told) -> list[bytes]:
    return [text for (_, text), is_gap in told if is_gap]


@given(before=_TAGS.filter(bool), after=_TAGS, signature=st.binary(min_size=1, max_size=300), folded=st.booleans())
def test_what_fills_a_gap_stands_where_it_would_stand_without_one(
    before: _Told, after: _Told, signature: bytes, folded: bool
) -> None:
    with_gaps = lay_out(b"DKIM-Signature", _tags(before), _tags(after))
    without = lay_out(b"DKIM-Signature", _written(before), _written(after))
    filled = with_gaps.close(signature, _values(before), _values(after), folded=folded)
    assert filled == without.close(signature, (), (), folded=folded)
    assert with_gaps.signed_form(_values(before), _values(after)) == without.signed_form(())


@given(before=_TAGS.filter(bool), after=_TAGS, signature=st.binary(min_size=1, max_size=300), folded=st.booleans())
def test_the_relaxed_form_is_that_of_the_field(before: _Told, after: _Told, signature: bytes, folded: bool) -> None:
    template = lay_out(b"ARC-Message-Signature", _tags(before), _tags(after))
    field = template.close(signature, _values(before), _values(after), folded=folded)
    assert field.relaxed == relax_field(field.raw)
    # RFC 6376 section 3.7: as it is signed, without the value of b= and without the CRLF.
    text = b" ".join(base64_lines(signature) if folded else [b"".join(base64_lines(signature))])
    unsigned = template.signed_form(_values(before), _values(after))
    assert unsigned == relax_field(field.raw.replace(text.replace(b" ", b"\r\n "), b""))[:-2]


def test_the_lines_of_a_field() -> None:
    template = lay_out(
        b"DKIM-Signature",
        [(b"v", b"1"), (b"d", b"a" * 52), (b"t", gap(10)), (b"mf", gaps((72, 4)))],
        [(b"rt", fold_list([gap(24)] * 3, b","))],
    )
    values = [b"1234567890", b"m" * 72, b"m" * 4]
    field = template.close(b"\0" * 57, values, [b"r" * 24] * 3)
    assert field.raw.split(b"\r\n") == [
        b"DKIM-Signature: v=1; d=" + b"a" * 52 + b";",
        b" t=1234567890;",
        b" mf=" + b"m" * 72,
        b" mmmm;",
        b" b=" + b"A" * 72,
        b" AAAA;",
        b" rt=" + b"r" * 24 + b"," + b"r" * 24 + b",",
        b" " + b"r" * 24,
        b"",
    ]


def test_too_few_values_are_no_field() -> None:
    template: Template = lay_out(b"DKIM-Signature", [(b"t", gap(10))])
    with pytest.raises(TypeError):
        template.close(b"x", ())
