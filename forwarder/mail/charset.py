"""What does text say whose charset a stranger names? RFC 2047 section 2, RFC 2045 section 5.1.

Python finds more by such a name than charsets: codecs that unpack, that read escapes and warn, that take quadratic time. And of
each name that it does not find it keeps a note for ever. So it is asked for names of charsets only.
"""

from __future__ import annotations

from encodings import normalize_encoding
from encodings.aliases import aliases

__all__ = ["decode_text"]

_NO_CHARSETS = frozenset(
    {"base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
)
#: By every name that Python has for one; those with no second name are in nobody's list.
_CHARSETS = {
    name: codec for alias, codec in aliases.items() if codec not in _NO_CHARSETS for name in (alias, codec)
} | {name: name for name in ("cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_t", "koi8_u")}
#: Characters of a name.
_MAX_NAME = 60


def decode_text(raw: bytes, charset: str, *, errors: str = "replace") -> str | None:
    """``None``: no charset that we know, or, with ``errors="strict"``, not text in it. RFC 2231 section 5: a language may stand
    behind the name."""
    name = charset.partition("*")[0]
    if len(name) > _MAX_NAME or not name.isascii():
        return None
    codec = _CHARSETS.get(normalize_encoding(name).lower())
    try:
        return raw.decode(codec, errors) if codec is not None else None
    except ValueError:
        # UTF-16 that is cut, whatever is to be done about errors.
        return None
