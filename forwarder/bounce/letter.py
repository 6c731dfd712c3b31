"""What does the owner of an alias read, and who writes the words? Letters are templates: ours, or files of the operator's.

A template is a text whose first line is ``Subject: ...``, an empty line, and what people read, with ``$name`` where something
goes in (``string.Template``). All that goes in is one line of printable text, however a stranger wrote it, but for lists of such
lines of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from importlib.resources import files
from string import Template

from forwarder.bounce.hide import Secrets, scrub_of
from forwarder.mail.autoreply import AutoReply
from forwarder.mail.letter import build_letter
from forwarder.model import Address, Finding, ReturnBounce
from forwarder.ports import Measure, Standing

__all__ = [
    "MAX_TEMPLATE",
    "Letter",
    "Letters",
    "compose_answer",
    "compose_digest",
    "compose_owner",
    "compose_pause",
    "one_line",
    "parse_letter",
    "standard_letters",
]

#: Octets of a template.
MAX_TEMPLATE = 16 * 1024
#: Findings in one letter: a message has a hundred recipients, a day may have any number.
MAX_FINDINGS = 200
#: Lines of somebody's automatic reply that are passed on.
_MAX_ANSWER = 40
_MAX_VALUE = 500

_AFTER_PAUSE = (
    "Its mail waits. Now and then one message is sent to see whether it works again; then everything\n"
    "goes there as before. If it keeps failing, it is disabled."
)
_AFTER_DISABLE = (
    "It gets no more mail. When it works again, tell the operator of this system, who can resume it,\n"
    "or have the alias lead elsewhere."
)


class Letter(StrEnum):
    """The letters, each by the name of its file without ``.txt``."""

    OWNER = "owner"
    DIGEST = "digest"
    AUTO_REPLY = "auto-reply"
    PAUSE = "pause"


_NAMES = {
    Letter.OWNER: ("alias", "sender", "kind", "findings", "told", "message_id", "hostname"),
    Letter.DIGEST: ("day", "count", "findings", "left_out", "hostname"),
    Letter.AUTO_REPLY: ("alias", "subject", "text", "hostname"),
    Letter.PAUSE: ("alias", "destination", "measure", "failures", "next", "hostname"),
}


@dataclass(frozen=True, slots=True)
class _Words:
    subject: Template
    text: Template


Letters = Mapping[Letter, _Words]


def parse_letter(letter: Letter, text: str) -> _Words:
    """Raises ValueError, with the reason, for a text that cannot be a template of this letter."""
    if len(text.encode("utf-8", "replace")) > MAX_TEMPLATE:
        raise ValueError(f"longer than {MAX_TEMPLATE} octets")
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    name, colon, subject = head.partition(":")
    if name.lower() != "subject" or not colon or not subject.strip() or "\n" in head:
        raise ValueError('must begin with one line "Subject: ..." and an empty line')
    words = _Words(Template(subject.strip()), Template(body))
    example = dict.fromkeys(_NAMES[letter], "")
    try:
        words.subject.substitute(example)
        words.text.substitute(example)
    except KeyError as error:
        names = ", ".join(f"${one}" for one in _NAMES[letter])
        raise ValueError(f"${error.args[0]} is nothing that is known here; those are {names}") from None
    except ValueError:
        raise ValueError("a $ that stands for itself is written $$") from None
    if any(not one.isprintable() for one in text.replace("\n", "").replace("\r", "").replace("\t", "")):
        raise ValueError("holds a control character")
    return words


def standard_letters() -> Letters:
    """Those of this package."""
    folder = files("forwarder.bounce").joinpath("letters")
    return {one: parse_letter(one, folder.joinpath(f"{one}.txt").read_text("utf-8")) for one in Letter}


# --- letters ----------------------------------------------------------------------------------------------------------


def compose_owner(
    words: Letters,
    to: Address,
    findings: Sequence[Finding],
    *,
    told: bool,
    message_id: str | None,
    hostname: str,
    id: str,  # noqa: A002 - what the envelope calls it
    now: datetime,
) -> bytes:
    """What happened to one message of ``findings``, all of one alias and sender. It names what is behind the alias. ``told``:
    the sender hears of it too."""
    first = findings[0]
    values = {
        "alias": one_line(first.alias),
        "sender": one_line(first.sender),
        "kind": first.kind,
        "findings": _listed(findings),
        "told": "The sender is told that it failed." if told else "The sender is not told of it.",
        "message_id": one_line(message_id or "none"),
        "hostname": hostname,
    }
    return _write(words[Letter.OWNER], values, to, hostname, id, now, "auto-generated")


def compose_digest(
    words: Letters,
    to: Address,
    day: date,
    findings: Sequence[Finding],
    count: int,
    *,
    hostname: str,
    id: str,  # noqa: A002 - what the envelope calls it
    now: datetime,
) -> bytes:
    """All of ``day`` for one owner. ``count``: how many there were; ``findings`` may be fewer."""
    by_alias = sorted(findings, key=lambda one: (one.alias, one.at))
    left_out = count - min(len(findings), MAX_FINDINGS)
    values = {
        "day": day.isoformat(),
        "count": str(count),
        "findings": "\n\n".join(f"{one_line(alias)}\n\n{_listed(ones)}" for alias, ones in _grouped(by_alias)),
        "left_out": f"{left_out} more are not listed." if left_out > 0 else "",
        "hostname": hostname,
    }
    return _write(words[Letter.DIGEST], values, to, hostname, id, now, "auto-generated")


def compose_pause(
    words: Letters,
    to: Address,
    alias: Address,
    standing: Standing,
    *,
    hostname: str,
    id: str,  # noqa: A002 - what the envelope calls it
    now: datetime,
) -> bytes:
    """A destination of ``alias`` gets no mail now, or no more."""
    paused = standing.measure is Measure.PAUSE
    values = {
        "alias": one_line(str(alias)),
        "destination": one_line(standing.subject.name),
        "measure": "paused" if paused else "disabled",
        "failures": "\n".join(
            f"    {one.at:%Y-%m-%d %H:%M} {one_line(one.what)}" for one in reversed(standing.evidence) if one.weight > 0
        ),
        "next": _AFTER_PAUSE if paused else _AFTER_DISABLE,
        "hostname": hostname,
    }
    return _write(words[Letter.PAUSE], values, to, hostname, id, now, "auto-generated")


def compose_answer(
    words: Letters,
    answer: AutoReply,
    returned: ReturnBounce,
    author: Address | None,
    *,
    hostname: str,
    id: str,  # noqa: A002 - what the envelope calls it
    now: datetime,
) -> bytes:
    """An automatic reply for the original sender: its words, without a trace of who wrote them. ``author``: who says to have."""
    alias = returned.alias or Address("undisclosed", returned.reversible.domain)
    secrets = Secrets.of(
        (returned.destination, author), known=(returned.sender, alias, returned.reversible), ours=hostname
    )

    def compose(subject: str, text: str) -> bytes:
        values = {"alias": str(alias), "subject": subject, "text": text, "hostname": hostname}
        return _write(words[Letter.AUTO_REPLY], values, returned.sender, hostname, id, now, "auto-replied")

    lines = [f"    {scrub_of(secrets, one, alias)}".rstrip() for one in answer.text.splitlines()[:_MAX_ANSWER]]
    raw = compose(scrub_of(secrets, answer.subject, alias), "\n".join(lines))
    # Once more over all of it: a secret may be spread over lines.
    if secrets.told_by(raw.decode("utf-8", "replace")) or secrets.told_by("".join(line.strip() for line in lines)):
        return compose("", "    [hidden]")
    return raw


def one_line(text: str) -> str:
    """Printable, without line ends, cut."""
    return "".join(one if one.isprintable() else " " for one in text[:_MAX_VALUE]).strip()


def _write(
    words: _Words, values: Mapping[str, str], to: Address, hostname: str, name: str, now: datetime, automatic: str
) -> bytes:
    subject, text = words.subject.substitute(values), words.text.substitute(values)
    return build_letter(to, subject, text, hostname=hostname, id=name, now=now, automatic=automatic)


def _grouped(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    groups: dict[str, list[Finding]] = {}
    for one in findings[:MAX_FINDINGS]:
        groups.setdefault(one.alias, []).append(one)
    return list(groups.items())


def _listed(findings: Sequence[Finding]) -> str:
    return "\n".join(
        f"    {one.at:%Y-%m-%d %H:%M} {one.kind}: <{one_line(one.destination)}>\n        {one_line(one.said) or one.status}"
        for one in findings[:MAX_FINDINGS]
    )
