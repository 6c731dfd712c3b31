"""Why did a delivery fail, and is the address to blame? Rules over status codes (RFC 3463) and what providers write.

The rules are data: ``reasons.toml`` beside this file, and a file of the operator's that goes before it. The first rule
that matches decides. Phrases, not regular expressions: no text that a stranger sends can make one of them slow.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any

__all__ = ["Cause", "Reason", "Rules", "RulesError", "Stage", "parse_rules", "standard_rules", "status_in"]

#: Characters of a diagnostic that are looked at.
MAX_TEXT = 1000
#: What one rule file may hold.
MAX_FILE = 1024 * 1024
MAX_RULES = 500
MAX_PHRASES = 5000
_MAX_PHRASE = 200
#: Characters that a ``*`` in a phrase stands for at most, and how many a phrase may have: so the search stays linear.
_GAP = 60
_MAX_GAPS = 2

_KEYS = frozenset({"reason", "hard", "stage", "status", "code", "mta", "text"})
_STATUS = re.compile(r"(?<![0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9]|\.[0-9])")
_STATUS_PATTERN = re.compile(r"(?:[245]|x)\.(?:[0-9]{1,3}|\*)\.(?:[0-9]{1,3}|\*)")
_CODE = re.compile(r"(?<![0-9.:#-])([245][0-9][0-9])(?=[ -]|\Z)")
#: What stands at the beginning of each line of a reply, wherever the lines were joined.
_LINE_START = re.compile(r"(?<!\S)[245][0-9][0-9][ -](?:\s*#?[245]\.[0-9]{1,3}\.[0-9]{1,3}(?!\S))?")
# Only where a word begins: a long one that is no address is read once.
_MAILBOX = re.compile(r"(?:<|(?<![^\s<>()\[\]:;,]))[^\s<>()\[\]:;,@]{1,255}@[^\s<>()\[\]:;,]{1,255}>?")


class Reason(StrEnum):
    """The classes of reasons. docs/operations.md tells operators the same."""

    UNKNOWN_USER = "unknown-user"
    MAILBOX_FULL = "mailbox-full"
    POLICY = "policy"
    SPAM = "spam"
    AUTHENTICATION = "authentication"
    BLOCKED_IP = "blocked-ip"
    RATE_LIMITED = "rate-limited"
    SIZE = "size"
    DNS = "dns"
    TLS = "tls"
    EXPIRED = "expired"
    CONTENT = "content"
    OTHER = "other"


class Stage(StrEnum):
    """What a server refused: the client, the sender, the recipient or the message."""

    CONNECT = "connect"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Cause:
    """``hard``: the address or its domain is gone, and no later message will get there either. What failed for good for
    any other reason (a full mailbox, a filter, our own reputation) failed just as much, and is not hard."""

    reason: Reason
    hard: bool


class RulesError(ValueError):
    """A rule file that cannot be used; the text names the rule and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """All that is given must match; of several phrases, status codes, reply codes one."""

    cause: Cause
    stage: Stage | None
    statuses: tuple[re.Pattern[str], ...]
    codes: frozenset[str]
    mtas: tuple[str, ...]
    phrases: tuple[str, ...]
    #: Phrases with gaps, each with the longest of its pieces: to look for that first takes a tenth of the time.
    patterns: tuple[tuple[str, re.Pattern[str]], ...]

    @property
    def knows_words(self) -> bool:
        return bool(self.phrases or self.patterns or self.mtas)

    def matches(self, stage: Stage | None, status: str, code: str, mta: str, text: str) -> bool:
        if self.stage is not None and self.stage is not stage:
            return False
        if self.mtas and not any(one in mta for one in self.mtas):
            return False
        if self.codes and code not in self.codes:
            return False
        if self.statuses and not any(one.fullmatch(status) for one in self.statuses):
            return False
        if not self.phrases and not self.patterns:
            return True
        # Loops, as they take half the time of any(): a report may hold a hundred recipients.
        for phrase in self.phrases:
            if phrase in text:
                return True
        for piece, pattern in self.patterns:  # noqa: SIM110
            if piece in text and pattern.search(text):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in the order in which they are asked."""

    rules: tuple[_Rule, ...]

    def classify(
        self,
        status: str | None,
        reply: str | None,
        mta: str | None = None,
        *,
        notice: str = "",
        stage: Stage | None = None,
        given_up: bool = False,
    ) -> Cause:
        """Why, as far as they tell: a status code (``None``: the reply may hold it), the words of a reply, the hosts that said
        and reported it; where no rule knows these words, those of a notice for people. Never raises.

        What is refused before an address is named, or with the message, is never hard, nor is what is refused for now (4.x.x),
        unless for days: an unknown user after whom somebody has ``given_up`` is one.
        """
        words = (reply or "")[:MAX_TEXT]
        status = status or status_in(words) or ""
        found = self._first(stage, status, words, mta or "")
        if notice and (found is None or not found.knows_words):
            told = self._first(stage, status, notice[:MAX_TEXT], mta or "")
            # That time ran out is said in every notice, whatever was the matter.
            if told is not None and (found is None or (told.knows_words and told.cause.reason is not Reason.EXPIRED)):
                found = told
        if found is None:
            return Cause(Reason.OTHER, False)
        lasts = not status.startswith("4") or (given_up and found.cause.reason is Reason.UNKNOWN_USER)
        return Cause(found.cause.reason, found.cause.hard and lasts and stage in (None, Stage.RCPT))

    def before(self, others: Rules) -> Rules:
        """These, and where none of them matches the others."""
        return Rules(self.rules + others.rules)

    def _first(self, stage: Stage | None, status: str, words: str, mta: str) -> _Rule | None:
        code = _CODE.search(words)
        asked = (stage, status, code[1] if code else "", mta.lower(), _plain(words))
        return next((rule for rule in self.rules if rule.matches(*asked)), None)


@lru_cache(maxsize=1)
def standard_rules() -> Rules:
    """The rules of this package."""
    return parse_rules(files("forwarder.mail").joinpath("reasons.toml").read_text(encoding="utf-8"))


def parse_rules(text: str) -> Rules:
    """The rules in a TOML file; raises ``RulesError``."""
    if len(text) > MAX_FILE:
        raise RulesError(f"larger than {MAX_FILE} octets")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"is not TOML: {error}") from error
    except RecursionError:
        raise RulesError("is not TOML: nested too deep") from None
    entries = table.pop("rule", [])
    if table:
        raise RulesError(f"{min(table)!r} is nothing that is known here: a rule file holds [[rule]] tables")
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise RulesError("rule: must be an array of tables, [[rule]]")
    if len(entries) > MAX_RULES:
        raise RulesError(f"{len(entries)} rules: at most {MAX_RULES}")
    rules = tuple(_parse_rule(number, entry) for number, entry in enumerate(entries, 1))
    if sum(len(one.phrases) + len(one.patterns) for one in rules) > MAX_PHRASES:
        raise RulesError(f"more than {MAX_PHRASES} phrases")
    return Rules(rules)


def status_in(text: str) -> str | None:
    """The status code (RFC 3463) in a text that says most: the first that is neither x.0.0, nor x.4.7, which says that time ran
    out on another fault; else the first of those."""
    found = [f"{one[0]}.{int(one[1])}.{int(one[2])}" for one in _STATUS.findall(text)]
    return min(found, key=lambda code: (code.endswith(".0.0"), code.endswith(".4.7")), default=None)


def _parse_rule(number: int, entry: dict[str, Any]) -> _Rule:
    where = f"rule {number}"
    unknown = entry.keys() - _KEYS
    if unknown:
        raise RulesError(f"{where}: {min(unknown)!r} is no key of a rule; those are {', '.join(sorted(_KEYS))}")
    try:
        reason = Reason(entry.get("reason", ""))
    except ValueError:
        raise RulesError(f"{where}: reason: must be one of {', '.join(Reason)}") from None
    try:
        stage = Stage(entry["stage"]) if "stage" in entry else None
    except ValueError:
        raise RulesError(f"{where}: stage: must be one of {', '.join(Stage)}") from None
    hard = entry.get("hard", False)
    if not isinstance(hard, bool):
        raise RulesError(f"{where}: hard: must be true or false")
    statuses, codes, mtas, texts = (_strings(where, entry, key) for key in ("status", "code", "mta", "text"))
    if not (statuses or codes or mtas or texts):
        raise RulesError(f"{where}: needs status, code, mta or text: it would match everything")
    for one in statuses:
        if not _STATUS_PATTERN.fullmatch(one):
            raise RulesError(f"{where}: status: {one!r} is not like 5.7.1, x.1.1 or 5.7.*")
    for one in codes:
        if not re.fullmatch(r"[245][0-9][0-9]", one):
            raise RulesError(f"{where}: code: {one!r} is no reply code")
    for one in texts:
        if one.count("*") > _MAX_GAPS:
            raise RulesError(f"{where}: text: {one!r} has more than {_MAX_GAPS} gaps (*)")
    phrases = [" ".join(one.lower().split()) for one in texts]
    return _Rule(
        Cause(reason, hard),
        stage,
        tuple(_status_pattern(one) for one in statuses),
        frozenset(codes),
        tuple(one.lower() for one in mtas),
        tuple(one for one in phrases if not _is_pattern(one)),
        tuple((_longest_piece(one), _pattern(one)) for one in phrases if _is_pattern(one)),
    )


def _strings(where: str, entry: dict[str, Any], key: str) -> list[str]:
    value = entry.get(key, [])
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(one, str) and len(one.strip()) > 0 for one in value):
        raise RulesError(f"{where}: {key}: must be a text or a list of texts, none of them empty")
    if any(len(one) > _MAX_PHRASE for one in value):
        raise RulesError(f"{where}: {key}: texts of at most {_MAX_PHRASE} characters")
    return value


def _status_pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace("x", "[245]").replace(r"\*", "[0-9]+"))


def _is_pattern(phrase: str) -> bool:
    return "*" in phrase or phrase.startswith("^")


def _longest_piece(phrase: str) -> str:
    """What is in every text that this phrase finds."""
    return max(phrase.removeprefix("^").lstrip().split("*"), key=len)


def _pattern(phrase: str) -> re.Pattern[str]:
    start, phrase = (r"\A", phrase[1:].lstrip()) if phrase.startswith("^") else ("", phrase)
    return re.compile(start + re.escape(phrase).replace(r"\*", f".{{0,{_GAP}}}?"))


def _plain(text: str) -> str:
    """The words alone, as phrases are compared: lower case, single spaces, without the codes at the beginnings of lines and
    without addresses, whose names would be taken for words."""
    text = _MAILBOX.sub("@", _LINE_START.sub(" ", text))
    return " ".join(text.replace("\u2019", "'").lower().split())
