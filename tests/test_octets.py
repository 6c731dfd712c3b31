"""octets.py: as bytes has it, at every length around the width of a vector register."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.octets import count, find

#: What is looked for in this program.
NEEDLES = (b"  ", b" \r\n", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\r", b"\n", b" " * 8, b" " * 64)


@pytest.mark.parametrize("needle", NEEDLES)
def test_it_is_found_wherever_it_stands_and_nowhere_else(needle: bytes) -> None:
    for before in range(140):
        for behind in (0, 1, 2, 31, 32, 63, 64, 65):
            text = b"." * before + needle + b"." * behind
            assert find(text, needle) == text.find(needle)
            assert find(text, needle, before) == before
            assert count(text, needle) == text.count(needle)
            # All but one of its octets.
            assert find(text.replace(needle, needle[:-1]), needle) == text.replace(needle, needle[:-1]).find(needle)


@given(
    st.lists(st.sampled_from((b"x", b" ", b"\r", b"\n", b"\r\n", b".", b"x" * 30)), max_size=200).map(b"".join),
    st.sampled_from(NEEDLES),
    st.integers(0, 300),
)
def test_any_text_is_read_as_bytes_reads_it(text: bytes, needle: bytes, start: int) -> None:
    for given_as in (text, bytearray(text), memoryview(text)):
        assert find(given_as, needle) == text.find(needle)
        assert count(given_as, needle) == text.count(needle)
    assert find(bytearray(text), needle, min(start, len(text))) == text.find(needle, min(start, len(text)))
