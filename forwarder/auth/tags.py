"""What does a tag-list say? RFC 6376 section 3.2, for DKIM and ARC fields, key records and mailkeys alike.

One strict parser for all of them: what two readers could take in two ways (a tag twice, an empty tag between
semicolons, a control character) is no tag-list. Everything here is one pass over its input.
"""

from __future__ import annotations

import binascii
import re

from forwarder.auth.dnsname import MAX_NAME, dns_name
from forwarder.kept import Kept

__all__ = [
    "TagError",
    "decode_base64",
    "parse_base64",
    "parse_domain",
    "parse_exact_base64",
    "parse_names",
    "parse_number",
    "parse_tags",
    "required",
    "without_space",
]

_SPACE = b" \t\r\n"
# RFC 6376 section 3.2 VALCHAR, the white space around it, and UTF-8 (RFC 8616 section 3).
_LEGAL = bytes([*_SPACE, *range(0x21, 0x7F), *range(0x80, 0x100)])
#: Names that need no pattern to be told from others.
_USUAL = frozenset(b"v a b bh c d h i k l n o p q r s t u x cv mf rt".split())
_TAG_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*\Z")
# RFC 6376 section 3.5: at most 12 digits, which is the year 33658; more is not a time.
_NUMBER = re.compile(rb"[0-9]{1,12}\Z")
# RFC 5322 section 3.6.8 ftext, without the semicolon that no tag value can hold.
_FIELD_NAMES = re.compile(rb"[!-9<-~]+(?::[!-9<-~]+)*\Z")
# RFC 6376 section 3.5 sub-domain, and the underscore that names in the DNS do have.
_DOMAIN = re.compile(r"(?!-)[a-z0-9_-]+(?<!-)(?:\.(?!-)[a-z0-9_-]+(?<!-))*\Z")


class TagError(ValueError):
    """No tag-list, or a tag without a legal value. The text names the tag and quotes nothing of the input."""


def parse_tags(text: bytes) -> dict[bytes, bytes]:
    """Tag names and values in their order, without the white space around them. Raises TagError."""
    if text.translate(None, _LEGAL):
        raise TagError("a control character in a tag-list")
    tags: dict[bytes, bytes] = {}
    specs = text.split(b";")
    # RFC 6376 section 3.2: one semicolon may end the list.
    if not specs[-1].strip(_SPACE):
        specs.pop()
    for spec in specs:
        name, equals, value = spec.partition(b"=")
        name = name.strip(_SPACE)
        if not equals or (name not in _USUAL and not _TAG_NAME.match(name)):
            raise TagError("a malformed tag")
        if name in tags:
            # RFC 6376 section 3.2: with a duplicate the whole list is invalid.
            raise TagError(f"{name.decode()[:16]}= twice")
        tags[name] = value.strip(_SPACE)
    return tags


def required(tags: dict[bytes, bytes], name: bytes) -> bytes:
    """The value of a tag that must be there and not be empty. Raises TagError."""
    if value := tags.get(name):
        return value
    raise TagError(f"{name.decode()}= {'is missing' if name not in tags else 'is empty'}")


def without_space(value: bytes) -> bytes:
    """A value that may be folded anywhere, in one piece."""
    return value.translate(None, _SPACE)


def decode_base64(octets: bytes) -> bytes:
    """RFC 4648 section 4, padded as it says and no further. Raises binascii.Error."""
    if len(octets) % 4:
        # binascii takes padding behind four whole letters.
        raise binascii.Error("wrong padding")
    return binascii.a2b_base64(octets, strict_mode=True)


def parse_exact_base64(tags: dict[bytes, bytes], name: bytes) -> bytes:
    """Base64 as docs/mailkey.md section 2 has it: white space anywhere, padding as RFC 4648 wants it. Raises TagError."""
    try:
        return decode_base64(without_space(required(tags, name)))
    except binascii.Error as error:
        raise TagError(f"{name.decode()}= is no base64") from error


def parse_base64(tags: dict[bytes, bytes], name: bytes) -> bytes:
    """A base64string (RFC 6376 section 2.10): white space anywhere; its grammar lets padding follow whole letters. Raises
    TagError."""
    try:
        return binascii.a2b_base64(without_space(required(tags, name)), strict_mode=True)
    except binascii.Error as error:
        raise TagError(f"{name.decode()}= is no base64") from error


def parse_number(tags: dict[bytes, bytes], name: bytes) -> int | None:
    """A decimal number; ``None`` where the tag is absent. Raises TagError."""
    if name not in tags:
        return None
    if not _NUMBER.match(tags[name]):
        raise TagError(f"{name.decode()}= is no number")
    return int(tags[name])


def parse_names(tags: dict[bytes, bytes], name: bytes = b"h") -> tuple[bytes, ...]:
    """A colon list of header field names, lower-cased, repeats kept. Raises TagError."""
    names = _names[required(tags, name)]
    if not names:
        raise TagError(f"{name.decode()}= is no list of field names")
    return names


def _split_names(text: bytes) -> tuple[bytes, ...]:
    value = without_space(text).lower()
    return tuple(value.split(b":")) if _FIELD_NAMES.match(value) else ()


#: Most senders have one or two lists; () is none.
_names = Kept(_split_names, most=512, longest=1024)


def parse_domain(tags: dict[bytes, bytes], name: bytes) -> str:
    """A domain or selector in lower-case A-labels (RFC 8616 section 4 lets it come in U-labels). Raises TagError."""
    domain = _domains[required(tags, name)]
    if domain is None:
        raise TagError(f"{name.decode()}= is no domain name")
    return domain


def _read_domain(text: bytes) -> str | None:
    try:
        domain = dns_name(text.decode())
    except UnicodeDecodeError:
        return None
    return domain if domain is not None and _DOMAIN.match(domain) else None


_domains = Kept(_read_domain, most=4096, longest=MAX_NAME)
