"""Does the quick look for a secret find what the plain one finds?"""

from __future__ import annotations

import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from forwarder.bounce.hide import _holds_squeezed, _squeeze, _unhex_octets

#: What an address is made of, what breaks it, and letters that are not ASCII.
PIECES = st.sampled_from(
    ["a", "b", "@", ".", "-", "_", " ", "\r\n", "<", "é", "\ufffd", "ß", "\u2024", "=", "0", "\x7f"]
)


@given(st.lists(PIECES, max_size=30), st.lists(st.sampled_from(["a", "b", "@", "é", "."]), min_size=1, max_size=3))
def test_what_is_in_a_text_once_it_is_squeezed_is_found(pieces: list[str], letters: list[str]) -> None:
    text, secret = "".join(pieces), "".join(letters)
    assert _holds_squeezed(text, [secret, "no-such.example"]) == (secret in _squeeze(text))


@given(
    st.lists(st.sampled_from(["%", "%C3", "%A9", "%41", "%e2%82%ac", "é", "a", "%2", "%zz", " ", "%F0%9F", "%98%80"]))
)
def test_percent_encoding_is_undone_as_urls_have_it(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert _unhex_octets("%")(text) == urllib.parse.unquote(text, errors="replace")
