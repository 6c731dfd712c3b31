"""Is this the answer of a machine to a message of ours: on holiday, received, moved? RFC 3834, and the habits before it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from forwarder.mail.header import unfold
from forwarder.mail.mime import decode_words, decoded, parse_content_type, walk_parts
from forwarder.mail.notice import MAIL_SYSTEM, MAILBOX
from forwarder.mail.report import Action, RecipientStatus, Report, parse_message_id
from forwarder.model import Message

__all__ = ["AutoReply", "parse_auto_reply"]

#: Characters of the text that are kept.
MAX_TEXT = 2000
_MAX_SUBJECT = 200
_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,996}>")
#: Fields that say so by being there, or by their first word.
_SIGNS = {
    b"auto-submitted": re.compile(rb"\s*auto-(?:replied|generated)", re.IGNORECASE),
    b"x-autoreply": re.compile(rb"\s*(?!no\b)\S", re.IGNORECASE),
    b"x-autorespond": re.compile(rb"\s*(?!no\b)\S", re.IGNORECASE),
    b"x-autoresponder": re.compile(rb"\s*(?!no\b)\S", re.IGNORECASE),
    b"precedence": re.compile(rb"\s*auto[_-]reply", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class AutoReply:
    """A claim, like a report. ``author`` is who answers, ``message_id`` what is answered."""

    author: str | None
    message_id: str | None
    subject: str
    text: str

    def as_report(self) -> Report:
        """For the search for the message that it answers: its author is who got that."""
        about = RecipientStatus(Action.DELIVERED, None, self.author)
        return Report((about,), None, None, b"", self.message_id)


def parse_auto_reply(message: Message) -> AutoReply | None:
    """``None``: it is none. A report that nobody can read bears the same mark and is none: what it says must not get lost. Never
    raises."""
    if not any(sign.match(one.value) for name, sign in _SIGNS.items() for one in message.all(name)):
        return None
    kind = message.first(b"content-type")
    if kind is not None and parse_content_type(unfold(kind.value).decode("latin-1"))[0] == "multipart/report":
        return None
    author = message.first(b"from")
    said = decode_words(unfold(author.value).decode("utf-8", "replace")) if author is not None else ""
    if MAIL_SYSTEM.search(said):
        return None
    mailboxes = re.findall(MAILBOX, said[:MAX_TEXT])
    subject = message.first(b"subject")
    return AutoReply(
        mailboxes[-1] if mailboxes else None,
        _answered(message),
        decode_words(unfold(subject.value).decode("utf-8", "replace"))[:_MAX_SUBJECT] if subject is not None else "",
        _text(message),
    )


def _answered(message: Message) -> str | None:
    """RFC 3834 section 3.1.5: In-Reply-To, and the last of References."""
    for name in (b"in-reply-to", b"references"):
        field = message.first(name)
        found = _MESSAGE_ID.findall(unfold(field.value)) if field is not None else []
        if found:
            return parse_message_id(found[-1])
    return None


def _text(message: Message) -> str:
    for part in walk_parts(message):
        if part.content_type == "text/plain":
            return decoded(part)[: 4 * MAX_TEXT].decode("utf-8", "replace")[:MAX_TEXT]
    return ""
