"""What follows from what content filters say? Their words and scores, the operator's rules, one decision.

No filter of ours: rspamd and milters know content, and are asked (``ports.ContentFilters``). What each of them says is a fact;
what follows is decided here. The sternest finding wins, but what is not known yet never loses mail: a filter that asks for time
goes before one that would drop the message or put it aside.

Fields that are put on a message say what was found. No field is added or taken out that a good signature covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from forwarder.auth.covered import Covered
from forwarder.model import ContentAction, ContentCheck, Field, Message

__all__ = [
    "MAX_FIELDS",
    "PLACEHOLDERS",
    "RESERVED",
    "ContentRule",
    "Judged",
    "added_fields",
    "forged_removed",
    "judge",
    "render_value",
    "unknown_placeholders",
]

#: Fields that one filter may put on one message, and octets of the value of each.
MAX_FIELDS = 20
MAX_VALUE = 2000
#: RFC 5322 section 2.1.1.
_MAX_LINE = 998
#: Names of symbols in one field.
_MAX_SYMBOLS = 40

#: What the value of a field of the operator's may hold.
PLACEHOLDERS = ("filter", "result", "score", "required", "action", "symbols")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

#: Fields that no filter may put on a message: they are the author's, tell readers who vouches for what, or are our trace.
RESERVED = frozenset(
    [
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "comments",
        "keywords",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "content-id",
        "content-description",
        "content-disposition",
        "return-path",
        "received",
        "delivered-to",
        "authentication-results",
        "dkim-signature",
        "mailkey-signature",
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
        "received-spf",
        "auto-submitted",
        "tls-required",
        "list-id",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "x-original-from",
    ]
)

_STERN = {one: number for number, one in enumerate(ContentAction)}


@dataclass(frozen=True, slots=True)
class ContentRule:
    """What the operator wants of one filter. ``actions``: its own words, and what is done; others are nothing to us.
    ``above``: what is done from beyond which score on. ``fields`` are put on whatever passes, ``tag_fields`` on what is tagged;
    ``accepted``: lower-case names of fields that the filter itself may put on. ``replace``: fields of these names that came with
    the message are taken out."""

    name: str
    actions: Mapping[str, ContentAction] = field(default_factory=dict)
    above: Sequence[tuple[float, ContentAction]] = ()
    on_failure: ContentAction = ContentAction.TEMPFAIL
    fields: Mapping[str, str] = field(default_factory=dict)
    tag_fields: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    replace: bool = False

    def decide(self, check: ContentCheck) -> ContentAction:
        """What this filter alone leads to."""
        if check.failure is not None:
            return self.on_failure
        found = [self.actions.get(check.action, ContentAction.ACCEPT)]
        if check.score is not None:
            found += [action for score, action in self.above if check.score > score]
        return max(found, key=_STERN.__getitem__)


@dataclass(frozen=True, slots=True)
class Judged:
    """What is done, and why (a text of ours, for the log). ``by`` is the filter's name, empty where all accept."""

    action: ContentAction
    by: str = ""
    reason: str = ""


def judge(rules: Sequence[ContentRule], checks: Sequence[ContentCheck]) -> Judged:
    """``checks`` are in the order of ``rules``."""
    found = [(rule.decide(check), check) for rule, check in zip(rules, checks, strict=True)]
    action, check = max(found, key=lambda one: _STERN[one[0]], default=(ContentAction.ACCEPT, ContentCheck("")))
    if action is ContentAction.ACCEPT:
        return Judged(action)
    return Judged(action, check.filter, f"{check.filter}: {_finding(check)}")


def _finding(check: ContentCheck) -> str:
    if check.failure is not None:
        return f"not asked: {check.failure}"
    score = "" if check.score is None else f", score {check.score:.2f}"
    return f"{check.action!r}{score}"


# --- fields ------------------------------------------------------------------------------------------------------------


def forged_removed(message: Message, rules: Sequence[ContentRule], covered: Covered) -> Message:
    """Without the fields that came from outside under names that only we give, as far as no good signature covers them."""
    ours = {
        name.lower().encode()
        for rule in rules
        if rule.replace
        for name in (*rule.fields, *rule.tag_fields, *rule.accepted)
    }
    gone = {name for name in ours if covered.may_remove(name)}
    kept = tuple(one for one in message.fields if one.name not in gone)
    if len(kept) == len(message.fields):
        return message
    return Message(b"".join(one.raw for one in kept), message.separator, message.body, kept, message.body_hashes)


def added_fields(rules: Sequence[ContentRule], checks: Sequence[ContentCheck], covered: Covered) -> list[Field]:
    """What goes on the message, in the order of the filters. What a good signature says is not there is left out."""
    return [
        one
        for rule, check in zip(rules, checks, strict=True)
        for one in _of_filter(rule, check)
        if covered.may_add(one.name)
    ]


def _of_filter(rule: ContentRule, check: ContentCheck) -> Iterator[Field]:
    if check.failure is not None:
        return
    tagged = _STERN[rule.decide(check)] >= _STERN[ContentAction.TAG]
    for name, template in (*rule.fields.items(), *(rule.tag_fields.items() if tagged else ())):
        yield _field(name, _fold(render_value(template, check, tagged=tagged)))
    # RFC 5322 section 2.2: a name is ASCII. Of what is not, some becomes an operator's name in lower case (U+212A is "k").
    accepted = [one for one in check.fields if one[0].isascii() and one[0].lower() in rule.accepted]
    for name, value in accepted[:MAX_FIELDS]:
        clean = _foreign_value(value)
        if clean is not None:
            yield _field(name, clean)


def _field(name: str, value: bytes) -> Field:
    return Field(name.lower().encode(), name.encode() + b": " + value + b"\r\n")


def unknown_placeholders(template: str) -> list[str]:
    """What stands in braces and means nothing."""
    return [one for one in _PLACEHOLDER.findall(template) if one not in PLACEHOLDERS]


def render_value(template: str, check: ContentCheck, *, tagged: bool) -> str:
    """The value of a field of the operator's; printable ASCII on one line."""
    values = {
        "filter": check.filter,
        "result": "Yes" if tagged else "No",
        "score": "-" if check.score is None else f"{check.score:.2f}",
        "required": "-" if check.required is None else f"{check.required:.2f}",
        "action": check.action,
        "symbols": ", ".join(check.symbols[:_MAX_SYMBOLS]),
    }
    text = _PLACEHOLDER.sub(lambda found: values.get(found[1], ""), template)
    return "".join(one if " " <= one <= "~" else "?" for one in text)[:MAX_VALUE].strip()


def _fold(text: str) -> bytes:
    """RFC 5322 section 2.2.3: broken at spaces, lines of 78 where words allow, never over 998."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + len(word) > 66:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word[: _MAX_LINE - 100]
    lines.append(line)
    return "\r\n ".join(lines).encode("ascii")


def _foreign_value(value: bytes) -> bytes | None:
    """As a filter wrote it: folds are kept, in our line ends. ``None``: it cannot stand in a header."""
    lines = value.replace(b"\r\n", b"\n").strip(b"\n ").split(b"\n")
    if len(value) > MAX_VALUE or not all(lines):
        return None
    if any(not one.startswith((b" ", b"\t")) or not one.strip() for one in lines[1:]):
        # A line that does not begin with white space would be a field of its own.
        return None
    if any(len(one) > _MAX_LINE - 100 or not _is_plain(one) for one in lines):
        return None
    return b"\r\n".join(lines)


def _is_plain(line: bytes) -> bool:
    return all(0x20 <= octet <= 0x7E or octet == 0x09 for octet in line)
