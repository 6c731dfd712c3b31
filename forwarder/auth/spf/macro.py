"""What does a macro string say, and what does it become? RFC 7208 section 7.

A string is parsed once and expanded often. Parsing decides which letters it needs, so that the look-ups behind ``%{p}``
happen only for the rare record that asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

__all__ = ["MacroError", "MacroString", "expand", "parse_domain_spec", "parse_explanation", "parse_macro_string"]

#: RFC 7208 section 7.3 asks for at least 127 right-hand parts; beyond three digits every name is shorter than that.
_MAX_DIGITS = 3
_EVERY_PART = 999
#: Macros in one string. A name has at most 127 labels; this keeps 2,000 macros of 500 characters from being expanded.
_MAX_MACROS = 127

_EXPAND = r"%\{(?P<letter>[A-Za-z])(?P<digits>[0-9]*)(?P<reverse>[rR]?)(?P<delimiters>[-.+,/_=]*)\}|%(?P<escape>[%_-])"
# RFC 7208 section 7.1: literals are %x21-24 / %x26-7E, and a space only in explain-string (section 6.2).
_TOKEN = re.compile(_EXPAND + r"|(?P<literal>[!-$&-~]+)")
_EXPLANATION_TOKEN = re.compile(_EXPAND + r"|(?P<literal>[ -$&-~]+)")
_LETTERS = frozenset("slodipvh")
# RFC 7208 section 7.2: these only in the text of an explanation.
_EXPLANATION_LETTERS = _LETTERS | frozenset("crt")
_ESCAPES = {"%": "%", "_": " ", "-": "%20"}
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")


class MacroError(ValueError):
    """The text breaks the grammar; the message says where, in bounded ASCII."""


@dataclass(frozen=True, slots=True)
class Macro:
    """One ``%{...}``: ``keep`` right-hand parts (``None``: all); ``escape`` is the URL form of upper-case letters."""

    letter: str
    keep: int | None
    reverse: bool
    delimiters: str
    escape: bool


@dataclass(frozen=True, slots=True)
class MacroString:
    """``literal`` is the whole text where there is nothing to expand; ``letters`` are those that the rest needs."""

    parts: tuple[str | Macro, ...]
    letters: frozenset[str]
    literal: str | None
    ends_in_macro: bool


def parse_macro_string(text: str) -> MacroString:
    """RFC 7208 section 7.1 macro-string, as unknown modifiers hold it. Raises MacroError."""
    return _parse(text, _LETTERS, _TOKEN)


def parse_domain_spec(text: str) -> MacroString:
    """RFC 7208 section 7.1 domain-spec: it ends in a macro or in a top label that is no number. Raises MacroError.

    The rule is about the text as published: what a macro at the end becomes is not for the syntax to judge.
    """
    parsed = parse_macro_string(text)
    if not parsed.ends_in_macro:
        _, dot, label = str(parsed.parts[-1] if parsed.parts else "").removesuffix(".").rpartition(".")
        if not dot or not _LABEL.match(label) or label.isdigit():
            raise MacroError(f"domain-spec {text[:60]!r} does not end in a top label")
    return parsed


@lru_cache(maxsize=256)
def parse_explanation(text: str) -> MacroString | None:
    """RFC 7208 section 6.2 explain-string; ``None``: it breaks the grammar, which is no fault of the check."""
    try:
        return _parse(text, _EXPLANATION_LETTERS, _EXPLANATION_TOKEN)
    except MacroError:
        return None


def expand(string: MacroString, values: Mapping[str, str]) -> str:
    """RFC 7208 section 7.3. ``values`` has a text for every one of ``string.letters``."""
    if string.literal is not None:
        return string.literal
    return "".join(part if isinstance(part, str) else _expand(part, values[part.letter]) for part in string.parts)


def _parse(text: str, letters: frozenset[str], token: re.Pattern[str]) -> MacroString:
    parts: list[str | Macro] = []
    ends_in_macro = False
    count = at = 0
    while at < len(text):
        match = token.match(text, at)
        if match is None:
            raise MacroError(f"bad character or macro at {text[at : at + 20]!r}")
        at = match.end()
        ends_in_macro = match["literal"] is None
        if match["literal"] is not None:
            parts.append(match["literal"])
        elif match["escape"] is not None:
            parts.append(_ESCAPES[match["escape"]])
        else:
            parts.append(_macro(match, letters))
            count += 1
            if count > _MAX_MACROS:
                raise MacroError(f"more than {_MAX_MACROS} macros in one string")
    macros = frozenset(part.letter for part in parts if isinstance(part, Macro))
    literal = None if macros else "".join(str(part) for part in parts)
    return MacroString(tuple(parts), macros, literal, ends_in_macro)


def _macro(match: re.Match[str], letters: frozenset[str]) -> Macro:
    letter = match["letter"].lower()
    if letter not in letters:
        raise MacroError(f"macro letter {letter!r} is not allowed here")
    digits = match["digits"].lstrip("0")
    if match["digits"] and not digits:
        # RFC 7208 section 7.3: the number of parts MUST be nonzero.
        raise MacroError("a macro that keeps zero parts")
    keep = None if not digits else int(digits) if len(digits) <= _MAX_DIGITS else _EVERY_PART
    return Macro(letter, keep, bool(match["reverse"]), match["delimiters"] or ".", match["letter"].isupper())


def _expand(macro: Macro, value: str) -> str:
    if macro.keep is not None or macro.reverse or macro.delimiters != ".":
        parts = _split(value, macro.delimiters)
        if macro.reverse:
            parts.reverse()
        if macro.keep is not None:
            parts = parts[-macro.keep :]
        value = ".".join(parts)
    # RFC 3986 section 2.3: quote() leaves exactly the unreserved characters when nothing else is called safe.
    return quote(value, safe="") if macro.escape else value


def _split(value: str, delimiters: str) -> list[str]:
    first, *others = dict.fromkeys(delimiters)
    for other in others:
        value = value.replace(other, first)
    return value.split(first)
