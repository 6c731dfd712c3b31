"""What our signatures select is selected once a message, and is what each of them would select by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.canonical import relax_field
from forwarder.auth.signed import (
    OVERSIGNED,
    SIGNED_IF_PRESENT,
    index_fields,
    select_fields,
    select_ours,
    unsigned_field,
)
from forwarder.model import Field

_NAMES = st.sampled_from([*OVERSIGNED, *sorted(SIGNED_IF_PRESENT), b"received", b"dkim-signature", b"x-other"])
_FIELDS = st.lists(_NAMES, max_size=40).map(
    lambda names: [Field(name, b"%b:  value %d\r\n" % (name.title(), at)) for at, name in enumerate(names)]
)


@given(fields=_FIELDS, ours=st.integers(1, 3))
def test_with_signatures_of_ours_on_top_it_is_what_the_whole_header_gives(fields: list[Field], ours: int) -> None:
    on_top = [Field(b"dkim-signature", b"DKIM-Signature: ours %d\r\n" % at) for at in range(ours)]
    signatures = [one for one in (*on_top, *fields) if one.name == b"dkim-signature"]
    selected = select_fields(fields).with_signatures([relax_field(one.raw) for one in reversed(signatures)])
    assert selected == select_ours(index_fields([*on_top, *fields]), (b"dkim-signature",))


@given(fields=_FIELDS)
def test_what_we_choose_is_what_its_names_select(fields: list[Field]) -> None:
    """RFC 6376 section 5.4.2, which is how a verifier reads h=."""
    ours = select_fields(fields)
    again = select_fields(fields, ours.chosen)
    assert (ours.names, ours.octets) == (again.names, again.octets)


_SPACE = st.sampled_from([b"", b" ", b"\t ", b"\r\n ", b" \r\n\t", b"\x0b"])
_PIECE = st.tuples(
    _SPACE, st.sampled_from([b"b", b"bh", b"v", b"B", b"b=b", b""]), _SPACE, st.sampled_from([b"=", b""]), _SPACE
)
_TAG = st.tuples(_PIECE.map(b"".join), st.sampled_from([b"abc", b"a b\r\n c", b"x=y", b""]), _SPACE).map(b"".join)


@given(tags=st.lists(_TAG, max_size=6), end=st.sampled_from([b"", b";", b" ; "]))
def test_whether_b_is_emptied_before_or_after_makes_no_difference(tags: list[bytes], end: bytes) -> None:
    """RFC 6376 section 3.7 empties it first."""
    field = b"DKIM-Signature:" + b";".join(tags) + end + b"\r\n"
    first = relax_field(unsigned_field(field)).removesuffix(b"\r\n")
    assert unsigned_field(relax_field(field)).removesuffix(b"\r\n") == first
