"""What does an SPF record say? RFC 7208 sections 4.5, 4.6.1 and 5 to 6, the syntax and nothing of its evaluation.

A record is parsed as a whole before any of it counts: an error in the last term spoils it for a client that the first
term would have passed (section 4.6). Parsed records are kept by their bytes, and networks are integers and masks: a
warm record of ``ip4:`` terms costs one comparison each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from forwarder.auth.spf.macro import MacroError, MacroString, parse_domain_spec, parse_macro_string
from forwarder.model import Result

__all__ = [
    "MAX_RECORD",
    "All",
    "BadRecord",
    "Directive",
    "Exists",
    "Hosts",
    "Include",
    "MailExchangers",
    "Network",
    "Pointer",
    "Record",
    "parse_record",
    "select_records",
]

#: Octets of a record. RFC 7208 section 3.4 wants answers to fit into 512; the largest in use are near 2,000.
MAX_RECORD = 8192

_QUALIFIERS = {"": Result.PASS, "+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}

# RFC 7208 section 4.6.1: a name and "=" make a modifier, whatever the name is; everything else is a directive.
_MODIFIER = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_.-]*)=(?P<value>.*)\Z", re.DOTALL)
_DIRECTIVE = re.compile(r"(?P<qualifier>[-+?~]?)(?P<name>[A-Za-z][A-Za-z0-9_.-]*)(?P<rest>.*)\Z", re.DOTALL)
# RFC 7208 section 5.6: no leading zeros.
_CIDR4 = r"(?:/(?P<four>0|[1-9][0-9]?))?"
_CIDR6 = r"(?:/(?P<six>0|[1-9][0-9]{0,2}))?"
_DUAL_CIDR = re.compile(_CIDR4 + r"(?://(?P<six>0|[1-9][0-9]{0,2}))?\Z")
#: Characters of the longest of these, ``/32//128``.
_LONGEST_DUAL_CIDR = 8
_NETWORK4 = re.compile(rf":(?P<address>[0-9.]+){_CIDR4}\Z")
_NETWORK6 = re.compile(rf":(?P<address>[0-9A-Fa-f:.]+){_CIDR6}\Z")


@dataclass(frozen=True, slots=True)
class Network:
    """``ip4`` and ``ip6``: ``address & mask == network`` for an address of this IP version."""

    qualifier: Result
    text: str
    version: int
    network: int
    mask: int


@dataclass(frozen=True, slots=True)
class All:
    """``all``."""

    qualifier: Result
    text: str


@dataclass(frozen=True, slots=True)
class Include:
    """``include:target``."""

    qualifier: Result
    text: str
    target: MacroString


@dataclass(frozen=True, slots=True)
class Hosts:
    """``a``; ``target`` is ``None`` for the domain itself. ``masks`` are those of IPv4 and of IPv6."""

    qualifier: Result
    text: str
    target: MacroString | None
    masks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MailExchangers:
    """``mx``, with the fields of ``Hosts``."""

    qualifier: Result
    text: str
    target: MacroString | None
    masks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pointer:
    """``ptr``; ``target`` is ``None`` for the domain itself."""

    qualifier: Result
    text: str
    target: MacroString | None


@dataclass(frozen=True, slots=True)
class Exists:
    """``exists:target``."""

    qualifier: Result
    text: str
    target: MacroString


Directive = Network | All | Include | Hosts | MailExchangers | Pointer | Exists


@dataclass(frozen=True, slots=True)
class Record:
    """A record that obeys the grammar: directives in their order, and the two modifiers that mean something."""

    directives: tuple[Directive, ...]
    redirect: MacroString | None
    explanation: MacroString | None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that does not, and why, in bounded ASCII."""

    reason: str


class _TermError(ValueError):
    """A term breaks the grammar; the message says which, in bounded ASCII."""


def select_records(texts: Sequence[bytes]) -> list[bytes]:
    """RFC 7208 section 4.5: the records whose version section is exactly v=spf1. ABNF strings match in any case."""
    return [text for text in texts if text[:6].lower() == b"v=spf1" and text[6:7] in (b"", b" ")]


def parse_record(text: bytes) -> Record | BadRecord:
    """Parse what ``select_records`` chose. Never raises."""
    return _parse_record(text) if len(text) <= MAX_RECORD else BadRecord(f"record longer than {MAX_RECORD} octets")


@lru_cache(maxsize=512)
def _parse_record(text: bytes) -> Record | BadRecord:
    try:
        # RFC 7208 section 3.1: US-ASCII. Section 4.6.1: only spaces divide terms; other controls stay and are refused.
        return _parse_terms(text[6:].decode("ascii").split(" "))
    except UnicodeDecodeError:
        return BadRecord("record is not ASCII")
    except (MacroError, _TermError) as error:
        return BadRecord(str(error))


def _parse_terms(terms: Sequence[str]) -> Record:
    directives: list[Directive] = []
    modifiers: dict[str, MacroString] = {}
    for term in terms:
        if not term:
            continue
        if match := _MODIFIER.match(term):
            _add_modifier(modifiers, match["name"].lower(), match["value"])
        else:
            directives.append(_parse_directive(term))
    return Record(tuple(directives), modifiers.get("redirect"), modifiers.get("exp"))


def _add_modifier(modifiers: dict[str, MacroString], name: str, value: str) -> None:
    if name not in ("redirect", "exp"):
        # RFC 7208 section 6: unknown modifiers are ignored, but their macros are part of the syntax.
        parse_macro_string(value)
        return
    if name in modifiers:
        # RFC 7208 section 6: at most once each.
        raise _TermError(f"more than one {name}=")
    modifiers[name] = parse_domain_spec(value)


def _parse_directive(term: str) -> Directive:
    match = _DIRECTIVE.match(term)
    if match is None:
        raise _TermError(f"term {term[:60]!r} is neither mechanism nor modifier")
    qualifier, rest = _QUALIFIERS[match["qualifier"]], match["rest"]
    match match["name"].lower():
        case "all" if not rest:
            return All(qualifier, term)
        case "ip4":
            return _parse_ip4(qualifier, term, rest)
        case "ip6":
            return _parse_ip6(qualifier, term, rest)
        case "include":
            return Include(qualifier, term, _parse_target(term, rest))
        case "a":
            return Hosts(qualifier, term, *_parse_hosts(term, rest))
        case "mx":
            return MailExchangers(qualifier, term, *_parse_hosts(term, rest))
        case "ptr":
            return Pointer(qualifier, term, _parse_target(term, rest) if rest else None)
        case "exists":
            return Exists(qualifier, term, _parse_target(term, rest))
    # RFC 7208 section 5: an unrecognized mechanism is a syntax error.
    raise _TermError(f"term {term[:60]!r} is no mechanism")


def _parse_target(term: str, rest: str) -> MacroString:
    if not rest.startswith(":"):
        raise _TermError(f"term {term[:60]!r} needs a domain")
    return parse_domain_spec(rest[1:])


def _parse_hosts(term: str, rest: str) -> tuple[MacroString | None, tuple[int, int]]:
    """RFC 7208 section 5.3: ``[ ":" domain-spec ] [ dual-cidr-length ]``. A slash may stand in a domain-spec, too."""
    start = max(0, len(rest) - _LONGEST_DUAL_CIDR)
    cidr = next(match for at in range(start, len(rest) + 1) if (match := _DUAL_CIDR.match(rest, at)))
    domain = rest[: cidr.start()]
    masks = (_mask4(term, cidr["four"]), _mask6(term, cidr["six"]))
    return (_parse_target(term, domain) if domain else None, masks)


def _parse_ip4(qualifier: Result, term: str, rest: str) -> Network:
    match = _NETWORK4.match(rest)
    if match is None:
        raise _TermError(f"term {term[:60]!r} is no IPv4 network")
    try:
        address = int(IPv4Address(match["address"]))
    except ValueError as error:
        raise _TermError(f"term {term[:60]!r} is no IPv4 network") from error
    mask = _mask4(term, match["four"])
    return Network(qualifier, term, 4, address & mask, mask)


def _parse_ip6(qualifier: Result, term: str, rest: str) -> Network:
    match = _NETWORK6.match(rest)
    if match is None:
        raise _TermError(f"term {term[:60]!r} is no IPv6 network")
    try:
        address = int(IPv6Address(match["address"]))
    except ValueError as error:
        raise _TermError(f"term {term[:60]!r} is no IPv6 network") from error
    mask = _mask6(term, match["six"])
    return Network(qualifier, term, 6, address & mask, mask)


def _mask4(term: str, length: str | None) -> int:
    return _mask(term, length, 32)


def _mask6(term: str, length: str | None) -> int:
    return _mask(term, length, 128)


def _mask(term: str, length: str | None, bits: int) -> int:
    prefix = bits if length is None else int(length)
    if prefix > bits:
        raise _TermError(f"term {term[:60]!r} has a prefix length beyond {bits}")
    return ((1 << prefix) - 1) << (bits - prefix)
