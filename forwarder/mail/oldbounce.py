"""What do reports say that are written for people alone? Those of qmail, older Exim and many gateways, before RFC 3464.

A guess, and made only for a message that says it comes from a mail system. It decides little: the reversible address
has proven that we sent mail for it, the addresses found here are only compared with those we sent it to, and of the
words nothing is passed on unscrubbed.
"""

from __future__ import annotations

import re

from forwarder.mail.header import unfold
from forwarder.mail.mime import decode_words, parse_content_type, walk_parts
from forwarder.mail.notice import MAIL_SYSTEM, MAILBOX, MAX_NAMED, Notice
from forwarder.mail.report import Action, RecipientStatus, Report, header_of, message_id_in
from forwarder.model import Message

__all__ = ["is_auto_reply", "parse_old_report"]

_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")

_SUBJECT = re.compile(
    r"undeliver|not deliver|deliver\w* (?:status|fail|notif|report|problem|error|delay|incomplete)"
    r"|fail\w* (?:to deliver|notice|deliver)|returned (?:mail|to sender)|mail (?:failure|error|returned|not|could)"
    r"|non-?deliver|mail deliver"
    r"|could not be delivered|unable to deliver|warning: (?:could not|message)|bounce|delivery failed|unzustellbar"
    r"|user unknown|delayed|failed mail|message status|rejected|wasn't delivered",
    re.IGNORECASE,
)
_SAYS_SO = re.compile(
    r"could not be delivered to|did not reach the following recipient|was not delivered to"
    r"|unable to deliver (?:your |the )?message|delivery (?:to the following recipients?|has) failed|had permanent fatal errors",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    r"delay|warning|still (?:being|trying)|will (?:be retried|keep trying|continue|try again|retry)"
    r"|not yet (?:been )?deliver|has not been delivered|attempts will (?:continue|be made)",
    re.IGNORECASE,
)
_GIVEN_UP = re.compile(r"giving up|given up|permanent|returned|failed|undeliverable|exceeded|too long", re.IGNORECASE)
_AUTO_SUBJECT = re.compile(
    r"\s*(?:auto(?:matic)?[ -]?(?:reply|response|answer)|out[ -]of[ -](?:the[ -])?office|vacation|away from|on holiday"
    r"|automatische antwort|abwesenheit|r\xe9ponse automatique|respuesta autom\xe1tica|risposta automatica"
    r"|resposta autom\xe1tica|automatisch antwoord|autosvar|automaattinen vastaus|\u81ea\u52d5(?:\u8fd4\u4fe1|\u5fdc\u7b54))",
    re.IGNORECASE,
)

_LIST = re.compile(rb"^list-(?:id|post):|^precedence:[ \t]*(?:list|bulk)", re.IGNORECASE | re.MULTILINE)
_ANSWER = re.compile(r"\s*(?:re|aw|sv|vs|antw?|fwd?|wg|tr)\s*:", re.IGNORECASE)
_TO = re.compile(rb"^to:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)


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
    if MAIL_SYSTEM.search(_value(message, b"from")):
        return False
    return not any(part.content_type in _STATUS_TYPES for part in walk_parts(message))


def parse_old_report(message: Message, notice: Notice) -> Report | None:
    """The report in this message, whose words are ``notice``; ``None`` where it does not look like one. Why each recipient
    failed is not yet in it. Never raises."""
    kind, parameters = parse_content_type(_value(message, b"content-type"))
    if kind == "multipart/report" and parameters.get("report-type", "").lower() == "feedback-report":
        # RFC 5965: a complaint has arrived, all too well.
        return None
    failed = _value(message, b"x-failed-recipients")
    if not failed and (is_auto_reply(message) or not _is_from_a_mail_system(message, notice)):
        return None
    header = header_of(notice.returned)
    reader = _value(message, b"to")
    found = tuple(re.findall(MAILBOX, failed)) or notice.recipients(reader) or _addressee(header, reader)
    if not found:
        return None
    action = _action(_value(message, b"subject"), notice.text)
    recipients = tuple(RecipientStatus(action, None, address) for address in dict.fromkeys(found[:MAX_NAMED]))
    return Report(recipients, returned_header=header, message_id=message_id_in(header))


def _is_from_a_mail_system(message: Message, notice: Notice) -> bool:
    author = _value(message, b"from")
    if _ANSWER.match(_value(message, b"subject")) and not MAIL_SYSTEM.search(author):
        # Somebody writes about a bounce, and quotes it.
        return False
    return (
        not author
        or MAIL_SYSTEM.search(author) is not None
        or _SUBJECT.search(_value(message, b"subject")) is not None
        or _SAYS_SO.search(notice.text[:2000]) is not None
    )


def _addressee(header: bytes, reader: str) -> tuple[str, ...]:
    """Whom the returned message was for, where it names one address only and came through no list."""
    field = None if _LIST.search(header) else _TO.search(header)
    found = re.findall(MAILBOX, field[1].decode("latin-1")[:2000]) if field else []
    return (found[0],) if len(found) == 1 and found[0].lower() not in reader.lower() else ()


def _action(subject: str, notice: str) -> Action:
    # The subject is about this report; the notice may explain what a warning is.
    for text in (subject, notice[:2000]):
        if _DELAYED.search(text) and not _GIVEN_UP.search(text):
            return Action.DELAYED
        if _GIVEN_UP.search(text):
            return Action.FAILED
    return Action.FAILED


def _value(message: Message, name: bytes) -> str:
    field = message.first(name)
    return decode_words(unfold(field.value).decode("latin-1")[:2000]) if field is not None else ""
