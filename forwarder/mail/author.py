"""How does another's From become ours? RFC 5322 section 3.6.2: one field is replaced, at most two are added beside it.

    From: Bob <bob@author.example>          From: "Bob via team"
                                             <reply=...@fwd.example>
                                            X-Original-From: Bob <bob@author.example>
                                            Reply-To: Bob <bob@author.example>

What the author wrote stays in X-Original-From, octet for octet. A Reply-To of the author's own stays as it is; without one,
answers go to the author. A display name is the author's, whatever it claims: it was signed with it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from forwarder.mail.address import Author, parse_author, wire
from forwarder.mail.header import MAX_FIELDS, MAX_HEADER
from forwarder.model import Address, Field, Message

__all__ = ["ORIGINAL_FROM", "replace_author"]

ORIGINAL_FROM = b"X-Original-From"
#: Characters of a name that are kept, and of the alias behind it.
_MAX_NAME = 100
_MAX_VIA = 64
#: Octets of a line without CRLF (RFC 5322 section 2.1.1).
_MAX_LINE = 998
#: Octets of text in one encoded word: with its frame it is 68 octets, and stands in a line behind the name of its field (RFC
#: 2047 section 2).
_ENCODED = 42


def replace_author(message: Message, address: Address, via: Address) -> Message | None:
    """The message with ``address`` as its author, named after the real one and the alias that it came ``via``. ``None``: there
    is not one author whose place could be taken, or the header would become too large."""
    author = parse_author(message)
    if author is None:
        return None
    fields = tuple(_replaced(message, _build_from(author, address, via)))
    header = b"".join(one.raw for one in fields)
    if len(header) > MAX_HEADER or len(fields) > MAX_FIELDS or _has_long_line(fields):
        return None
    return Message(header, message.separator, message.body, fields, message.body_hashes)


def _replaced(message: Message, ours: bytes) -> Iterator[Field]:
    for one in message.fields:
        if one.name != b"from":
            yield one
            continue
        yield Field(b"from", ours)
        yield Field(ORIGINAL_FROM.lower(), ORIGINAL_FROM + b":" + one.value)
        if message.first(b"reply-to") is None:
            yield Field(b"reply-to", b"Reply-To:" + one.value)


def _has_long_line(fields: tuple[Field, ...]) -> bool:
    longest = (max(map(len, one.raw.split(b"\r\n"))) for one in fields if one.name == ORIGINAL_FROM.lower())
    return max(longest, default=0) > _MAX_LINE


def _build_from(author: Author, address: Address, via: Address) -> bytes:
    name = _clean(author.name)[:_MAX_NAME].strip() or _clean(f"{author.address.local} at {author.address.domain}")
    text = f"{name[:_MAX_NAME]} via {_clean(via.local)[:_MAX_VIA]}"
    return b"From: " + _render_phrase(text) + b"\r\n " + wire(address) + b"\r\n"


def _clean(text: str) -> str:
    """Without what cannot be seen, and what could not be encoded."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _render_phrase(text: str) -> bytes:
    """A quoted string (RFC 5322 section 3.2.4), or encoded words (RFC 2047), so that no next hop needs SMTPUTF8 for it."""
    if text.isascii():
        return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'
    return b"\r\n ".join(b"=?utf-8?B?" + b64encode(one) + b"?=" for one in _chunks(text))


def _chunks(text: str) -> Iterator[bytes]:
    """UTF-8 in pieces; no character is cut (RFC 2047 section 5)."""
    piece = b""
    for one in text:
        octets = one.encode()
        if len(piece) + len(octets) > _ENCODED:
            yield piece
            piece = b""
        piece += octets
    yield piece
