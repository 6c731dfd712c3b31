"""What do a report's words for people say, and of whom? Plain text in all its habits, from Sendmail to Zoho.

All that is found is a guess: the addresses are compared with those we sent mail to, the codes only sort the failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from itertools import islice, pairwise, takewhile

from forwarder.mail.mime import Part, decoded, walk_parts
from forwarder.mail.reasons import Stage
from forwarder.model import Message

__all__ = [
    "MAILBOX",
    "MAIL_SYSTEM",
    "MAX_NAMED",
    "NO_NOTICE",
    "Notice",
    "peer_in",
    "read_notice",
    "reply_in",
    "split_words",
    "stage_in",
]

#: Octets of a notice that are read; what people are told fits many times over.
_MAX_NOTICE = 16 * 1024
#: Octets in which the end of the notice and the header behind it are sought.
_MAX_SOUGHT = 64 * 1024
#: Characters about one recipient, and of one reply, that are looked at.
_MAX_WORDS = 2000
_MAX_REPLY = 500
#: Recipients that a notice is divided among, and places at which it mentions them.
MAX_NAMED = 20
_MAX_MENTIONS = 200

_RETURNED_TYPES = (
    "message/rfc822",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global",
    "message/global-headers",
)

MAIL_SYSTEM = re.compile(
    r"mail(?:er)?[._-]?daemon|post[-_]?master|<>|mail delivery|delivery (?:sub)?system|mail ?admin|system administrator"
    r"|\bmdaemon|majordomo|listserv-|bounce|mail ?system|smtp ?server|mta@|nondelivery",
    re.IGNORECASE,
)
MAILBOX = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){1,10}"
# From the clearest place to the vaguest: where a transcript or a sentence names a recipient, a line that begins with an
# address, angle brackets, anywhere.
_PLACES = (
    re.compile(
        rf"(?:^[45][0-9][0-9] (?=<[^<>\s]{{1,320}}>\.\.\.)|\brcpt to:"
        rf"|\b(?:final|original|failed)[ -]recipients?:?(?: rfc822;)?|undeliver(?:able|ed) to:?"
        rf"|not be (?:delivered|sent) to:?|smtp[=:]|wasn't delivered to|message was addressed,?)[ \t]*[<\[\"']?({MAILBOX})",
        re.IGNORECASE | re.MULTILINE,
    ),
    re.compile(rf"^[ \t>*-]*[<\[]?({MAILBOX})[>\]]?[ \t]*(?:$|:|\.\.\.|\(|,$|\[| on |;)", re.MULTILINE),
    re.compile(rf"<({MAILBOX})>"),
    re.compile(rf"(?<![A-Za-z0-9.@])({MAILBOX})"),
)
# Fields of the message that the notice is about, quoted among its words: whose addresses they hold is no failure.
_QUOTED_FIELD = re.compile(
    r"^[ \t>*|]*(?:from|to|cc|bcc|sender|reply-to|subject|sent|date|sent date|message-id|mail from|in-reply-to|references"
    r"|user-agent|return-path|received):[^\n]*(?:\n[ \t]+[^\s:]{1,80}[ \t]*(?=\n))?",
    re.IGNORECASE | re.MULTILINE,
)
_REPLY = re.compile(r"(?<![0-9.:#-])[45][0-9][0-9](?:[ -]|#|: )[^\n]{3,}")
_OTHER_REPLY = re.compile(r"[245][0-9][0-9][ -]")
_PEER = re.compile(
    r"(?:\bhost|talking to|SMTP server|connect(?:ion)? to)[ <]+([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,10})(?=[ \[:>.,]|$)",
    re.IGNORECASE | re.MULTILINE,
)
# Not ">>> DATA": behind it Sendmail shows the replies to the commands before it too.
_STAGE = re.compile(
    r"(?P<connect>initial connection|refused to talk to me|(?:HELO|EHLO) command|after (?:HELO|EHLO))"
    r"|(?P<mail>MAIL FROM command|after MAIL FROM|like our MAIL FROM|>>> MAIL)"
    r"|(?P<rcpt>RCPT(?: TO)? command|after RCPT|like our RCPT|like recipient|>>> RCPT|\[RCPT_TO\]|SMTP:RCPT)"
    r"|(?P<data>(?:after|to) end of (?:DATA|message)|DATA command|after DATA|our final DATA|after I sent the message|\(DATA\))",
    re.IGNORECASE,
)
#: One of these is in whatever that finds. To look for them takes a tenth of the time, and most texts have none.
_STAGE_WORDS = (
    *("initial connection", "refused to talk to me", "helo", "ehlo", "mail from", ">>> mail", "rcpt", "like recipient"),
    *("data", "end of message", "after i sent the message"),
)
# Where the returned message begins: a line that says so, or four header fields in a row.
_RETURNED_LINE = re.compile(
    r"^[ \t]{0,20}[-_=*>]{2,80}.{0,20}(?:copy of|original|returned|unsent|your|message|header|below).{0,80}$"
    r"|^(?:the )?(?:original|your) (?:message|mail) (?:header.{0,60}|follows|below"
    r"|(?:is|was) (?:attached|included|enclosed|below|as follows|reproduced).{0,60})$",
    re.IGNORECASE | re.MULTILINE,
)
_HEADER_BLOCK = re.compile(r"(?:^[A-Za-z][A-Za-z0-9-]{1,40}:[ \t]?[^\n]*\n(?:[ \t]+\S[^\n]*\n)*){4}", re.MULTILINE)
# A header tells where the message is from; a summary for people does not always.
_ORIGIN = re.compile(r"^(?:from|received|return-path|message-id):", re.IGNORECASE | re.MULTILINE)
_MAX_BLOCKS = 5


@dataclass(frozen=True, slots=True)
class Notice:
    """``text``: what people are told. ``returned``: the message it is about, or its beginning; ``b""`` where none is in it."""

    text: str
    returned: bytes

    def recipients(self, reader: str) -> tuple[str, ...]:
        """The addresses that did not get it: not the ``reader``, whom it was sent to, and no mail system."""
        for text in (_QUOTED_FIELD.sub("", self.text), self.text):
            for place in _PLACES:
                found = [one.strip(".'") for one in place.findall(text)]
                found = [one for one in found if one.lower() not in reader.lower() and not MAIL_SYSTEM.match(one)]
                if found:
                    return tuple(dict.fromkeys(found))
        return ()


NO_NOTICE = Notice("", b"")


def read_notice(message: Message) -> Notice:
    """The words for people, without the message they are about."""
    text = ""
    returned = b""
    for part in walk_parts(message):
        if part.content_type in _RETURNED_TYPES:
            returned = returned or decoded(part)
        elif part.content_type.startswith(("text/", "multipart/")) and not text.strip():
            # A multipart that nobody could take apart is read as the text that it looks like.
            text = _decoded_text(part)
    if not returned:
        text, returned = _cut(text)
    return Notice(text[:_MAX_NOTICE], returned)


def split_words(text: str, addresses: Sequence[str]) -> dict[str, str]:
    """What a notice says of each address (in lower case): the lines from each mention of it to the next of another. Of one
    alone all of it; of more than anybody lists in words, nothing."""
    names = sorted({one.lower() for one in addresses if one}, key=len, reverse=True)
    if len(names) == 1:
        return {names[0]: text[:_MAX_WORDS]}
    if not 0 < len(names) <= MAX_NAMED:
        return {}
    said: dict[str, str] = {}
    for (at, name), (end, _) in pairwise([*_mentions(text, names), (len(text), "")]):
        said[name] = (said.get(name, "") + "\n" + text[at:end])[:_MAX_WORDS]
    return said


def reply_in(text: str) -> str | None:
    """The first reply (RFC 5321 section 4.2) that a text quotes, in one line."""
    reply = _REPLY.search(text)
    if reply is None:
        return None
    code = reply[0][:3]
    # A reply goes on over further lines, up to an empty one or another reply.
    lines = text[reply.start() : reply.start() + _MAX_REPLY].partition("\n\n")[0].splitlines()
    goes_on = takewhile(lambda line: not _OTHER_REPLY.match(line) or line.startswith(code), lines)
    return " ".join(" ".join(goes_on).split())


def peer_in(text: str) -> str | None:
    """The server that a text says it talked to."""
    peer = _PEER.search(text)
    return peer[1].lower() if peer else None


def stage_in(text: str) -> Stage | None:
    """At which command a text says that a server refused."""
    said = " ".join(text.split())
    folded = said.lower()
    if not any(one in folded for one in _STAGE_WORDS):
        return None
    found = _STAGE.search(said)
    return Stage(found.lastgroup) if found and found.lastgroup else None


def _mentions(text: str, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The start of each line that names another address than the mention before it."""
    folded = text.lower() if len(text.lower()) == len(text) else text
    before = ""
    for match in islice(re.finditer("|".join(map(re.escape, names)), folded), _MAX_MENTIONS):
        if match[0] != before:
            before = match[0]
            yield text.rfind("\n", 0, match.start()) + 1, before


def _decoded_text(part: Part) -> str:
    raw = decoded(part)[:_MAX_SOUGHT]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = text.replace("\r\n", "\n")
    if part.content_type != "text/html":
        return text
    text = re.sub(r"<(?:br|/?p|/?div|/?t[rd])\b[^<>@]{0,500}>", "\n", text, flags=re.IGNORECASE)
    # Tags go, addresses in angle brackets stay.
    return unescape(re.sub(r"</?[a-zA-Z!][^<>@]{0,500}>", "", text)).replace("\xa0", " ")


def _cut(text: str) -> tuple[str, bytes]:
    """One text that holds both: the returned message begins with a header."""
    for block in islice(_HEADER_BLOCK.finditer(text, min(len(text), 1)), _MAX_BLOCKS):
        header = text[block.start() :].partition("\n\n")[0]
        if _ORIGIN.search(header):
            # Four fields are its beginning, not its end.
            return text[: block.start()], text[block.start() :].encode("utf-8", "replace")
    line = _RETURNED_LINE.search(text)
    return (text[: line.start()], b"") if line else (text, b"")
