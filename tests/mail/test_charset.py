"""Charsets that strangers name."""

from __future__ import annotations

import encodings

import pytest

from forwarder.mail.charset import decode_text


@pytest.mark.parametrize(
    ("raw", "charset", "expected"),
    [
        (b"\xc3\xbc", "utf-8", "ü"),
        (b"\xfc", "ISO-8859-1", "ü"),
        (b"\xfc", "latin1*de", "ü"),
        (b"\xc0", "KOI8-U", "ю"),
        (b"\xfc", "windows-1252", "ü"),
        (b'\x1b$B$"\x1b(B', "iso-2022-jp", "あ"),
        (b"\xff", "us-ascii", "\ufffd"),
        (b"a", "x-unknown", None),
        (b"a", "", None),
        (b"a", "ü", None),
        (b"a", "a" * 1000, None),
    ],
)
def test_a_charset_is_known_by_its_names(raw: bytes, charset: str, expected: str | None) -> None:
    assert decode_text(raw, charset) == expected


@pytest.mark.parametrize(
    "charset",
    ["unicode_escape", "raw-unicode-escape", "idna", "punycode", "undefined", "rot13", "hex", "zlib", "base64", "uu"],
)
def test_what_python_has_besides_is_no_charset(charset: str) -> None:
    assert decode_text(b"\\q", charset) is None


def test_what_is_not_text_in_its_charset_is_said_where_that_counts() -> None:
    assert decode_text(b"\xff", "utf-8", errors="strict") is None


def test_a_name_that_nobody_knows_is_remembered_by_nobody() -> None:
    before = len(encodings._cache)  # type: ignore[attr-defined]  # where Python keeps what it has looked for
    for number in range(1000):
        decode_text(b"a", f"x-{number}")
    assert len(encodings._cache) == before  # type: ignore[attr-defined]
