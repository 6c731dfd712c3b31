"""What does a zone that somebody wrote down say? Labs (``dns.zone_file``) and ``forwarder authenticate`` with ``dns``.

A zone maps a name to a type to a list of presentation data. It answers as a resolver in front of such a zone would: a
CNAME is followed, a name that is not there is NXDOMAIN, one that only has names below it is NODATA, and a ``*`` label
stands for what is missing (RFC 4592). A word in place of a list is a fault to rehearse. ``"DNSSEC": "secure"`` at a name
makes answers for it and all below authentic, until ``"insecure"`` further down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, TypeVar

from forwarder.auth.dnsname import dns_name, parent
from forwarder.ports import Answer, DnsStatus, Tlsa
from forwarder.resolver.stats import ResolverStats

__all__ = ["ZoneError", "ZoneResolver"]

T = TypeVar("T")

#: Seconds, for callers that look at it: nothing here is cached.
_TTL = 300
_MAX_CNAMES = 8
_FAULTS = ("SERVFAIL", "TIMEOUT")
_EVERY_TYPE = "*"
#: No type: what a validating resolver would find from this name down.
_DNSSEC = "DNSSEC"
_FINDINGS = {"secure": True, "insecure": False}

_NXDOMAIN: Answer[Any] = Answer(DnsStatus.NXDOMAIN, ttl=_TTL)
_NODATA: Answer[Any] = Answer(DnsStatus.NODATA, ttl=_TTL)

Zone = Mapping[str, Mapping[str, Sequence[str] | str]]


class ZoneError(ValueError):
    """The zone cannot be read; the message names the place."""


class ZoneResolver:
    """``ports.Resolver`` over a dict. Raises ZoneError when it is made, never later."""

    def __init__(self, zone: Zone) -> None:
        self.stats = ResolverStats()
        self._names: dict[str, dict[str, Answer[Any]]] = {}
        self._secure: dict[str, bool] = {}
        for owner, types in zone.items():
            name = dns_name(owner)
            if name is None:
                raise ZoneError(f"{owner[:80]!r} is no DNS name")
            if not isinstance(types, Mapping):
                raise ZoneError(f"{name}: type -> list of data expected")
            answers = self._names.setdefault(name, {})
            for rdtype, data in types.items():
                if rdtype.upper() == _DNSSEC:
                    self._secure[name] = _finding(name, data)
                else:
                    answers[rdtype.upper()] = _answer(name, rdtype.upper(), data)
        # RFC 8020: what has a name below it exists.
        self._parents = {above for name in self._names for above in _ancestors(name)}

    @classmethod
    def from_file(cls, path: Path) -> ZoneResolver:
        """A zone as a JSON object. Raises ZoneError, and OSError where the file cannot be read."""
        try:
            zone = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ZoneError(f"{path}: {error}") from error
        if not isinstance(zone, dict):
            raise ZoneError(f"{path}: name -> type -> list of data expected")
        return cls(zone)

    async def aclose(self) -> None:
        """Nothing is under way."""

    def __len__(self) -> int:
        """How many names there are."""
        return len(self._names)

    async def txt(self, name: str, *, fresh: bool = False) -> Answer[bytes]:
        return self._look_up(name, "TXT")

    async def a(self, name: str) -> Answer[IPv4Address]:
        return self._look_up(name, "A")

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        return self._look_up(name, "AAAA")

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        return self._look_up(name, "MX")

    async def tlsa(self, name: str) -> Answer[Tlsa]:
        return self._look_up(name, "TLSA")

    async def cname(self, name: str) -> Answer[str]:
        return self._look_up(name, "CNAME")

    def prefetch_txt(self, names: Iterable[str]) -> None:
        """Nothing to do: a zone answers at once."""

    async def ptr(self, ip: IPv4Address | IPv6Address) -> Answer[str]:
        return self._look_up(ip.reverse_pointer, "PTR")

    def _look_up(self, text: str, rdtype: str) -> Answer[Any]:
        name = asked = dns_name(text)
        if name is None:
            return _NXDOMAIN
        self.stats.queries += 1
        authentic = bool(self._secure)
        for _ in range(_MAX_CNAMES + 1):
            authentic = authentic and self._is_secure(name)
            types = self._types_of(name)
            answer, target = self._step(name, types, rdtype)
            if target is None:
                end = "" if name == asked else name
                return replace(answer, authentic=authentic, canonical=end) if authentic or end else answer
            name = target
        return Answer(DnsStatus.TEMPERROR, detail="CNAME loop")

    def _step(self, name: str, types: Mapping[str, Answer[Any]] | None, rdtype: str) -> tuple[Answer[Any], str | None]:
        """The answer at this name, or the name that it is an alias of."""
        if types is None:
            return (_NODATA if name in self._parents else _NXDOMAIN), None
        answer = types.get(rdtype)
        if answer is not None:
            return answer, None
        alias = types.get("CNAME")
        if alias is None or not alias.records:
            return types.get(_EVERY_TYPE, _NODATA), None
        return alias, str(alias.records[0])

    def _is_secure(self, name: str) -> bool:
        return next((self._secure[one] for one in (name, *_ancestors(name)) if one in self._secure), False)

    def _types_of(self, name: str) -> dict[str, Answer[Any]] | None:
        types = self._names.get(name)
        if types is None and name not in self._parents:
            # RFC 4592 section 3.3.1: the wildcard below the closest encloser, and no other.
            encloser = next((one for one in _ancestors(name) if one in self._names or one in self._parents), None)
            types = self._names.get(f"*.{encloser}")
        return types


def _ancestors(name: str) -> list[str]:
    above = []
    while name := parent(name):
        above.append(name)
    return above


def _answer(name: str, rdtype: str, data: object) -> Answer[Any]:
    if isinstance(data, str) and data.upper() in _FAULTS:
        return Answer(DnsStatus.TEMPERROR, detail=data.upper())
    if not isinstance(data, list | tuple) or not all(isinstance(one, str) for one in data):
        raise ZoneError(f"{name} {rdtype}: a list of texts, or one of {', '.join(_FAULTS)}, expected")
    parse = _PARSERS.get(rdtype)
    try:
        # Types that nobody asks for make the name exist, and that is all.
        records = tuple(data) if parse is None else tuple(parse(one) for one in data)
    except ValueError as error:
        raise ZoneError(f"{name} {rdtype}: {error}") from error
    return Answer(DnsStatus.OK, records, _TTL) if records else _NODATA


def _finding(name: str, data: object) -> bool:
    finding = _FINDINGS.get(data) if isinstance(data, str) else None
    if finding is None:
        raise ZoneError(f"{name} {_DNSSEC}: one of {', '.join(_FINDINGS)} expected")
    return finding


# --- presentation data ------------------------------------------------------------------------------------------------

# RFC 1035 section 5.1: character-strings in quotes, with \" and \DDD in them.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\s+|\Z)', re.DOTALL)
_ESCAPE = re.compile(rb"\\([0-9]{3}|.)", re.DOTALL)


def _parse_txt(text: str) -> bytes:
    """``"a" "b"`` as character-strings, anything else as it stands."""
    strings = []
    at = 0
    while match := _QUOTED.match(text, at):
        strings.append(_ESCAPE.sub(_unescape, match[1].encode()))
        at = match.end()
    return b"".join(strings) if strings and at == len(text) else text.encode("utf-8", "surrogateescape")


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1].isdigit() and len(match[1]) > 1:
        if int(match[1]) > 255:
            raise ValueError(f"{match[0]!r} is no octet")
        return bytes((int(match[1]),))
    return match[1]


def _parse_mx(text: str) -> tuple[int, str]:
    preference, _, exchange = text.strip().partition(" ")
    return int(preference), _parse_host(exchange)


def _parse_host(text: str) -> str:
    return text.strip().removesuffix(".")


def _parse_tlsa(text: str) -> Tlsa:
    # RFC 6698 section 2.2: the data may stand in several pieces.
    usage, selector, matching, *data = text.split()
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex("".join(data)))


def _parse_cname(text: str) -> str:
    target = dns_name(text.strip())
    if target is None:
        raise ValueError(f"{text[:80]!r} is no DNS name")
    return target


_PARSERS: dict[str, Callable[[str], Any]] = {
    "TXT": _parse_txt,
    "A": lambda text: IPv4Address(text.strip()),
    "AAAA": lambda text: IPv6Address(text.strip()),
    "MX": _parse_mx,
    "PTR": _parse_host,
    "CNAME": _parse_cname,
    "TLSA": _parse_tlsa,
}
