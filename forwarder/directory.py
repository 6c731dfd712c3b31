"""Which addresses do we serve, and where do they lead? ``ports.Directory`` over what the configuration lists.

An address is looked for as it is written (case does not count), then without its tags (``team+news`` is ``team``), then as
postmaster or abuse, which RFC 5321 section 4.5.1 and RFC 2142 want in every domain, then as ``*``. An alias that leads to an
alias of ours is followed to its end when the directory is made, so a look-up is a few questions to a dict.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from forwarder.mail.address import ascii_domain
from forwarder.model import Address
from forwarder.ports import AliasFound, DirectoryAnswer, MailboxFound, NoSuchAlias, NotOurDomain

__all__ = ["CATCH_ALL", "DeadEnd", "ServedDomain", "StaticDirectory"]

CATCH_ALL = "*"
#: RFC 5321 section 4.5.1, RFC 2142 section 4.
_ALWAYS = ("postmaster", "abuse")
_PLUS = "+"
# RFC 5322 section 3.2.3; the specials and the space are what it excludes.
_DOT_ATOM = re.compile(r"""[^\s"(),.:;<>@\[\\\]]+(?:\.[^\s"(),.:;<>@\[\\\]]+)*""")


@dataclass(frozen=True, slots=True)
class ServedDomain:
    """``aliases``: local part, or ``*``, to targets; ``()`` is a disabled alias, which ``*`` does not catch either.
    ``srs_domain``: under which reversible addresses for its mail are minted, ``None``: the common one."""

    aliases: Mapping[str, Sequence[Address]]
    srs_domain: str | None = None
    plus_addressing: bool = True


@dataclass(frozen=True, slots=True)
class DeadEnd:
    """The alias leads to ``target``, an address of ours that does not exist; ``None``: it leads only back to itself."""

    domain: str
    alias: str
    target: Address | None


class _Alias(Protocol):
    @property
    def targets(self) -> tuple[Address, ...]: ...
    @property
    def enabled(self) -> bool: ...


class _Domain(Protocol):
    @property
    def aliases(self) -> Mapping[str, _Alias]: ...
    @property
    def srs_domain(self) -> str | None: ...
    @property
    def plus_addressing(self) -> bool: ...


class _LegacySrs(Protocol):
    @property
    def domain(self) -> str | None: ...


class _Srs(Protocol):
    @property
    def domain(self) -> str: ...
    @property
    def legacy(self) -> Sequence[_LegacySrs]: ...


class _Admin(Protocol):
    @property
    def address(self) -> Address | None: ...


class _Settings(Protocol):
    """What of the configuration matters here (adapters do not import it)."""

    @property
    def hostname(self) -> str: ...
    @property
    def domains(self) -> Mapping[str, _Domain]: ...
    @property
    def srs(self) -> _Srs: ...
    @property
    def admin(self) -> _Admin: ...


class _Entry(NamedTuple):
    """``targets`` are addresses outside once the directory is made; ``()``: disabled, or a dead end."""

    alias: Address
    targets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class _Served:
    name: str
    spelled: str
    plus_addressing: bool
    entries: dict[str, _Entry]


class StaticDirectory:
    """``domains`` by name, A-labels or U-labels. ``admin`` gets postmaster's and abuse's mail; ``None``: it is kept here.
    ``hostname`` has a postmaster too. ``dead_ends`` are mistakes that the operator should hear of."""

    def __init__(
        self,
        domains: Mapping[str, ServedDomain],
        *,
        srs_domain: str,
        hostname: str | None = None,
        admin: Address | None = None,
        legacy_domains: Iterable[str] = (),
    ) -> None:
        self._domains = {ascii_domain(spelled): _served(spelled, domain) for spelled, domain in domains.items()}
        self._srs_domain = ascii_domain(srs_domain)
        self._own_srs_domain = {
            ascii_domain(name): ascii_domain(one.srs_domain) for name, one in domains.items() if one.srs_domain
        }
        self._srs_domains = frozenset({self._srs_domain, *self._own_srs_domain.values()})
        # Reversible addresses of another program, made before ours; none is minted there.
        self._srs_domains |= {ascii_domain(name) for name in legacy_domains}
        for name in (*self._srs_domains, *([hostname] if hostname else [])):
            self._domains.setdefault(ascii_domain(name), _served(name, ServedDomain({})))
        self._admin: tuple[Address, ...] = () if admin is None else (admin,)
        self.dead_ends = tuple(self._follow_all())

    @classmethod
    def from_settings(cls, settings: _Settings) -> StaticDirectory:
        """What the configuration lists."""
        domains = {
            name: ServedDomain(
                {alias: one.targets if one.enabled else () for alias, one in domain.aliases.items()},
                domain.srs_domain,
                domain.plus_addressing,
            )
            for name, domain in settings.domains.items()
        }
        return cls(
            domains,
            srs_domain=settings.srs.domain,
            hostname=settings.hostname,
            admin=settings.admin.address,
            legacy_domains=[one.domain for one in settings.srs.legacy if one.domain is not None],
        )

    async def look_up(self, address: Address) -> DirectoryAnswer:
        """See ``ports.Directory``."""
        found = self._find(address)
        if isinstance(found, _Entry):
            return AliasFound(found.alias, found.targets) if found.targets else NoSuchAlias()
        return found

    def is_ours(self, domain: str) -> bool:
        """See ``ports.Directory``."""
        return ascii_domain(domain) in self._domains

    def is_nowhere(self, address: Address) -> bool:
        """An address of ours that mail cannot be sent to: unknown, disabled or a dead end."""
        found = self._find(address)
        return isinstance(found, NoSuchAlias) or (isinstance(found, _Entry) and not found.targets)

    def srs_domain(self, domain: str) -> str:
        """See ``ports.Directory``."""
        return self._own_srs_domain.get(ascii_domain(domain), self._srs_domain)

    def is_srs_domain(self, domain: str) -> bool:
        """See ``ports.Directory``."""
        return ascii_domain(domain) in self._srs_domains

    def _find(self, address: Address) -> _Entry | MailboxFound | NoSuchAlias | NotOurDomain:
        domain = self._domains.get(ascii_domain(address.domain))
        if domain is None:
            return NotOurDomain()
        local = _comparable(address.local)
        bases = list(_bases(local)) if domain.plus_addressing else [local]
        for base in bases:
            if (entry := domain.entries.get(base)) is not None:
                return entry
        if bases[-1] in _ALWAYS:
            alias = Address(bases[-1], domain.name)
            return _Entry(alias, self._admin) if self._admin else MailboxFound(alias, alias.local)
        if (entry := domain.entries.get(CATCH_ALL)) is not None:
            # The alias is the address that was written to, in one spelling: loops and second copies are told by it.
            return _Entry(Address(_wire(local), domain.name), entry.targets)
        return NoSuchAlias()

    # --- aliases of aliases --------------------------------------------------------------------------------------

    def _follow_all(self) -> Iterator[DeadEnd]:
        """Puts addresses outside in the place of addresses of ours."""
        for domain in self._domains.values():
            for local, entry in domain.entries.items():
                outside, unknown, is_circle = self._follow(entry.targets)
                domain.entries[local] = _Entry(entry.alias, outside)
                for target in unknown:
                    yield DeadEnd(domain.spelled, entry.alias.local, target)
                if is_circle:
                    yield DeadEnd(domain.spelled, entry.alias.local, None)
        self._admin = self._follow(self._admin).outside

    def _follow(self, targets: tuple[Address, ...]) -> _Followed:
        """Every address is visited once, so a circle ends, and so does an alias that is in several lists."""
        outside: list[Address] = []
        unknown: list[Address] = []
        is_ended = False
        waiting = deque(targets)
        seen = set()
        while waiting:
            target = waiting.popleft()
            name = (target.local, ascii_domain(target.domain))
            if name in seen:
                continue
            seen.add(name)
            match self._find(target):
                case NotOurDomain():
                    outside.append(target)
                case _Entry(_, further):
                    waiting.extend(further)
                    is_ended = is_ended or not further
                case NoSuchAlias() | MailboxFound():
                    unknown.append(target)
        return _Followed(
            tuple(outside),
            tuple(one for one in unknown if one in targets),
            is_circle=bool(targets) and not (outside or unknown or is_ended),
        )


class _Followed(NamedTuple):
    """``unknown`` are addresses of ours that do not exist; ``is_circle``: there is no way out."""

    outside: tuple[Address, ...]
    unknown: tuple[Address, ...]
    is_circle: bool


def _served(spelled: str, domain: ServedDomain) -> _Served:
    name = ascii_domain(spelled)
    entries = {
        _comparable(local): _Entry(Address(local, name), tuple(targets)) for local, targets in domain.aliases.items()
    }
    return _Served(name, spelled, domain.plus_addressing, entries)


def _bases(local: str) -> Iterator[str]:
    """``a+b+c``, ``a+b``, ``a``: an alias may have a plus sign itself."""
    yield local
    at = local.rfind(_PLUS)
    while at > 0:
        yield local[:at]
        at = local.rfind(_PLUS, 0, at)


def _comparable(local: str) -> str:
    """RFC 5321 section 4.1.2: a quoted string and the same text without quotes are one local part. Case does not count."""
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", local).lower()


def _wire(local: str) -> str:
    """The local part as it stands in an address, quoted only where it must be."""
    if _DOT_ATOM.fullmatch(local):
        return local
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
