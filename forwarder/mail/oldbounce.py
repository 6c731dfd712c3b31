"""What do reports say that are written for people alone? Those of qmail, older Exim and many gateways, before RFC 3464.

A guess, and made only for a message that says it comes from a mail system. It decides little: the reversible address
has proven that we sent mail for it, the addresses found here are only compared with those we sent it to, and of the
words nothing is passed on unscrubbed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from forwarder.mail.header import unfold
from forwarder.mail.mime import Part, decoded, parse_content_type, walk_parts
from forwarder.mail.report import Action, RecipientStatus, Report, header_of, message_id_in
from forwarder.model import Message

__all__ = ["is_auto_reply", "parse_old_report"]

#: Octets of a notice that are read; what people are told fits many times over.
_MAX_NOTICE = 16 * 1024
#: Octets in which the end of the notice and the header behind it are sought.
_MAX_SOUGHT = 64 * 1024
_MAX_RECIPIENTS = 20
_MAX_DIAGNOSTIC = 500

_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")

_MAIL_SYSTEM = re.compile(
    r"mail(?:er)?[._-]?daemon|post[-_]?master|<>|mail delivery|delivery (?:sub)?system|mail ?admin|system administrator"
    r"|\bmdaemon|majordomo|listserv-|bounce|mail ?system|smtp ?server|mta@|nondelivery",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"undeliver|not deliver|deliver\w* (?:status|fail|notif|report|problem|error|delay|incomplete)"
    r"|fail\w* (?:to deliver|notice|deliver)|returned (?:mail|to sender)|mail (?:failure|error|returned|not|could)"
    r"|non-?deliver|mail deliver"
    r"|could not be delivered|unable to deliver|warning: (?:could not|message)|bounce|delivery failed|unzustellbar"
    r"|user unknown|delayed|failed mail|message status|rejected|wasn't delivered",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    r"delay|warning|still (?:being|trying)|will (?:be retried|keep trying|continue|try again|retry)"
    r"|not yet (?:been )?deliver|has not been delivered",
    re.IGNORECASE,
)
_GIVEN_UP = re.compile(r"giving up|given up|permanent|returned|failed|undeliverable|exceeded|too long", re.IGNORECASE)
_AUTO_SUBJECT = re.compile(
    r"\s*(?:auto(?:matic)?[ -]?(?:reply|response)|out of (?:the )?office|vacation)", re.IGNORECASE
)

_MAILBOX = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){1,10}"
# From the clearest place to the vaguest: a line that begins with it, angle brackets, anywhere.
_PLACES = (
    re.compile(rf"^[ \t>*-]*<?({_MAILBOX})>?[ \t]*(?:$|:|\.\.\.|\(|,$)", re.MULTILINE),
    re.compile(rf"<({_MAILBOX})>"),
    re.compile(rf"(?<![A-Za-z0-9.@])({_MAILBOX})"),
)
_CODE = re.compile(r"(?<![0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_REPLY = re.compile(r"(?<![0-9.])[45][0-9][0-9](?:[ -]|#)[^\n]{3,}")
# Where the returned message begins: a line that says so, or four header fields in a row.
_RETURNED_LINE = re.compile(
    r"^[ \t]{0,20}[-_=*>]{2,80}.{0,20}(?:copy of|original|returned|unsent|your|message|header|below).{0,80}$"
    r"|^(?:the )?(?:original|your) (?:message|mail) (?:header|follows|is|was|below).{0,60}$",
    re.IGNORECASE | re.MULTILINE,
)
_HEADER_BLOCK = re.compile(r"(?:^[A-Za-z][A-Za-z0-9-]{1,40}:[ \t][^\n]*\n(?:[ \t][^\n]*\n)*){4}", re.MULTILINE)


def is_auto_reply(message: Message) -> bool:
    """Does a person's mailbox answer here (RFC 3834: vacation, receipt), rather than a mail system report?"""
    kind, parameters = parse_content_type(_value(message, b"content-type"))
    if kind == "multipart/report":
        # RFC 8098: a disposition notification is an answer, whatever its sender.
        return parameters.get("report-type", "").lower() == "disposition-notification"
    if message.first(b"x-failed-recipients") is not None:
        return False
    submitted = _value(message, b"auto-submitted").lower().startswith("auto-replied")
    answers = submitted or message.first(b"x-autoreply") is not None or message.first(b"x-autorespond") is not None
    if not answers and not _AUTO_SUBJECT.match(_value(message, b"subject")):
        return _value(message, b"precedence").lower() == "auto_reply"
    if _MAIL_SYSTEM.search(_value(message, b"from")):
        return False
    return not any(part.content_type in _STATUS_TYPES for part in walk_parts(message))


def parse_old_report(message: Message) -> Report | None:
    """The report in this message; ``None`` where it does not look like one. Never raises."""
    failed = _value(message, b"x-failed-recipients")
    if not failed and (is_auto_reply(message) or not _is_from_a_mail_system(message)):
        return None
    notice, returned = _notice(message)
    found = re.findall(_MAILBOX, failed) or list(_addresses(notice, _value(message, b"to")))
    if not found:
        return None
    action = _action(_value(message, b"subject"), notice)
    header = header_of(returned)
    status, diagnostic = _reason(notice)
    if status is not None and (status[0] == "2" or (action is Action.DELAYED and status[0] == "5")):
        status = None
    recipients = tuple(
        RecipientStatus(action, None, address, status, diagnostic) for address in dict.fromkeys(found[:_MAX_RECIPIENTS])
    )
    return Report(recipients, returned_header=header, message_id=message_id_in(header))


def _is_from_a_mail_system(message: Message) -> bool:
    author = _value(message, b"from")
    return (
        not author
        or _MAIL_SYSTEM.search(author) is not None
        or _SUBJECT.search(_value(message, b"subject")) is not None
    )


def _notice(message: Message) -> tuple[str, bytes]:
    """The words for people, and the message they are about."""
    words = ""
    returned = b""
    for part in walk_parts(message):
        if part.content_type in _RETURNED_TYPES:
            returned = returned or decoded(part)
        elif part.content_type.startswith("text/") and not words:
            words = _words(part)
    if not returned:
        words, returned = _cut(words)
    return words[:_MAX_NOTICE], returned


def _words(part: Part) -> str:
    raw = decoded(part)[:_MAX_SOUGHT]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n")
    return re.sub(r"<(?:br|/?p|/?div|/?t[rd])[^<>@]*>", "\n", text) if part.content_type == "text/html" else text


def _cut(words: str) -> tuple[str, bytes]:
    """One text that holds both: the returned message begins with a header."""
    block = _HEADER_BLOCK.search(words, min(len(words), 1))
    if block is None:
        line = _RETURNED_LINE.search(words)
        return (words[: line.start()], b"") if line else (words, b"")
    # Four fields are its beginning, not its end.
    return words[: block.start()], words[block.start() :].encode("utf-8", "replace")


def _addresses(notice: str, reader: str) -> Iterator[str]:
    """The addresses that a notice is about: not the one it was sent to, and not the system's own."""
    for place in _PLACES:
        found = [one.strip(".'") for one in place.findall(notice)]
        found = [one for one in found if one.lower() not in reader.lower() and not _MAIL_SYSTEM.match(one)]
        if found:
            yield from found
            return


def _action(subject: str, notice: str) -> Action:
    # The subject is about this report; the notice may explain what a warning is.
    for text in (subject, notice[:2000]):
        if _DELAYED.search(text) and not _GIVEN_UP.search(text):
            return Action.DELAYED
        if _GIVEN_UP.search(text):
            return Action.FAILED
    return Action.FAILED


def _reason(notice: str) -> tuple[str | None, str | None]:
    reply = _REPLY.search(notice)
    # A reply goes on over indented lines.
    text = (
        " ".join(notice[reply.start() : reply.start() + _MAX_DIAGNOSTIC].partition("\n\n")[0].split()) if reply else ""
    )
    code = _CODE.search(text) or _CODE.search(notice)
    return f"{code[1]}.{int(code[2])}.{int(code[3])}" if code else None, text or None


def _value(message: Message, name: bytes) -> str:
    field = message.first(name)
    return unfold(field.value).decode("latin-1")[:2000] if field is not None else ""
