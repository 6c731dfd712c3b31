"""Which hashes of a body are certain to be asked for? They are taken while it comes, so that none is left to do at its end.

The relaxed form is that of our own signatures, and of nearly all others. The header says whether somebody signed the simple form.
"""

from __future__ import annotations

from forwarder.auth.canonical import BodyHash, Form
from forwarder.auth.dkim.signature import parse_forms
from forwarder.auth.tags import TagError, parse_tags
from forwarder.mail.header import MalformedMessage, parse_content
from forwarder.model import Content, Field

__all__ = ["HashedAhead"]

#: Fields with a c=, and what they mean without one.
_SIGNATURES = {b"dkim-signature": b"simple/simple", b"arc-message-signature": b"relaxed/relaxed"}


class HashedAhead:
    """Of a message with this header."""

    def __init__(self, header: bytes) -> None:
        self._hashes: dict[Form, BodyHash] = {form: BodyHash(form) for form in _forms(header)}

    def update(self, chunk: bytes) -> None:
        """The next octets of the body, wherever they are cut."""
        for one in self._hashes.values():
            one.update(chunk)

    def finish(self) -> dict[tuple[str, int | None], bytes]:
        """That was all: what ``Message.body_hashes`` keeps."""
        return {(form, None): one.finish() for form, one in self._hashes.items()}


def _forms(header: bytes) -> list[Form]:
    try:
        fields = parse_content(Content(header, b"\r\n", b"")).fields
    except MalformedMessage:
        # It is refused in a moment.
        return []
    simple = any(_body_form(one) == "simple" for one in fields if one.name in _SIGNATURES)
    return ["relaxed", "simple"] if simple else ["relaxed"]


def _body_form(field: Field) -> Form | None:
    try:
        return parse_forms(parse_tags(field.value).get(b"c", _SIGNATURES[field.name]))[1]
    except TagError:
        return None
