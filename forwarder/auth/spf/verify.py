"""Is this client allowed to use this domain? RFC 7208 section 4, check_host() and what surrounds it.

The evaluation reads down the record and stops at the first directive that matches. What ends it early (an error in any
record on the way, a limit, a DNS fault) is raised as ``_Stop`` and caught once, at the top. The time limit of section
4.6.4 belongs to the caller, which runs every check of a message under one deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, assert_never

from forwarder.auth.dnsname import MAX_NAME, dns_name
from forwarder.auth.spf.macro import MacroString, expand, parse_explanation
from forwarder.auth.spf.record import (
    All,
    BadRecord,
    Exists,
    Hosts,
    Include,
    MailExchangers,
    Network,
    Pointer,
    Record,
    parse_record,
    select_records,
)
from forwarder.model import Address, Result, SpfCheck
from forwarder.ports import Answer, DnsStatus, Resolver
from forwarder.values import value

__all__ = ["MAX_DNS_TERMS", "MAX_EXPLANATION", "MAX_HOSTS", "MAX_VOID_TERMS", "verify_spf"]

#: RFC 7208 section 4.6.4: terms that ask the DNS, over all records of one check.
MAX_DNS_TERMS = 10
#: RFC 7208 section 4.6.4: terms whose question has no answer.
MAX_VOID_TERMS = 2
#: RFC 7208 section 4.6.4: hosts looked up for one ``mx``, and names of one client for ``ptr`` and ``%{p}``.
MAX_HOSTS = 10
#: Characters of an explanation: it has to fit into an SMTP reply line (RFC 5321 section 4.5.3.1.5) with ours before it.
MAX_EXPLANATION = 400

_POSTMASTER = "postmaster"

#: A name that no resolver asks for (ports.Resolver: it answers NXDOMAIN).
_NO_NAME = ""

_Asking = Include | Hosts | MailExchangers | Pointer | Exists


async def verify_spf(
    resolver: Resolver,
    *,
    identity: Literal["mailfrom", "helo"],
    ip: IPv4Address | IPv6Address,
    sender: Address | None,
    helo: str,
    receiver: str,
    now: datetime,
    default_explanation: str | None = None,
) -> SpfCheck:
    """Check the MAIL FROM or the HELO identity. ``default_explanation`` goes with a ``fail`` that brings none."""
    local, claimed = _identity(identity, sender, helo)
    domain = dns_name(claimed)
    # RFC 7208 section 4.3: no domain name, or one of a single label, cannot have a policy. Nor can an address literal.
    if domain is None or claimed.startswith("["):
        return SpfCheck(Result.NONE, claimed[: MAX_NAME + 2], "no domain name to check")
    if "." not in domain:
        return SpfCheck(Result.NONE, domain, "the domain has one label")
    # RFC 7208 section 5: an IPv4 address that came mapped into IPv6 is an IPv4 address.
    client = (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip
    check = _Check(resolver, client, int(client), client.version, local, domain, helo, receiver, now)
    try:
        verdict = await _check_host(check, domain)
    except _Stop as stop:
        return SpfCheck(stop.result, domain, stop.reason)
    explanation = None
    if verdict.result is Result.FAIL:
        explanation = await _explain(check, verdict) or default_explanation
    return SpfCheck(verdict.result, domain, verdict.reason, explanation)


def _identity(identity: Literal["mailfrom", "helo"], sender: Address | None, helo: str) -> tuple[str, str]:
    if identity == "helo" or sender is None:
        # RFC 7208 sections 2.3 and 2.4: the HELO identity, and what stands in for the null sender.
        return _POSTMASTER, helo
    # RFC 7208 section 4.3: a sender without a local part is postmaster.
    return sender.local or _POSTMASTER, sender.domain


@dataclass(slots=True)
class _Check:
    """One check under way: what is known of the client, and what has been used up."""

    resolver: Resolver
    ip: IPv4Address | IPv6Address
    address: int
    version: int
    local: str
    sender_domain: str
    helo: str
    receiver: str
    now: datetime
    dns_terms: int = 0
    void_terms: int = 0
    names: list[str] | None = None
    proven: dict[str, bool] = field(default_factory=dict)

    def count_term(self, text: str) -> None:
        # RFC 7208 section 4.6.4: beyond the limit the domain has no usable policy.
        self.dns_terms += 1
        if self.dns_terms > MAX_DNS_TERMS:
            raise _Stop(Result.PERMERROR, f"more than {MAX_DNS_TERMS} terms with DNS look-ups at {text[:60]!r}")

    def count_void(self, text: str) -> None:
        self.void_terms += 1
        if self.void_terms > MAX_VOID_TERMS:
            raise _Stop(Result.PERMERROR, f"more than {MAX_VOID_TERMS} void look-ups at {text[:60]!r}")


class _Stop(Exception):
    """The evaluation ends here with this result."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


@value
class _Verdict:
    """The result, and the record (with its domain) that gave it: its ``exp=`` explains a ``fail``."""

    result: Result
    reason: str
    domain: str
    record: Record | None = None


async def _check_host(check: _Check, domain: str) -> _Verdict:
    """RFC 7208 section 4. The result may be ``none``: what that means depends on who asked."""
    record = await _lookup_record(check, domain)
    while record is not None:
        for directive in record.directives:
            match directive:
                case Network():
                    # No coroutine for the common case: a record of fifty networks is fifty comparisons.
                    matches = directive.version == check.version and check.address & directive.mask == directive.network
                case All():
                    matches = True
                case _:
                    check.count_term(directive.text)
                    matches = await _matches(check, directive, domain)
            if matches:
                return _Verdict(directive.qualifier, f"{directive.text[:80]} of {domain}", domain, record)
        if record.redirect is None:
            # RFC 7208 section 4.7.
            return _Verdict(Result.NEUTRAL, f"nothing of {domain} matched", domain, record)
        # RFC 7208 section 6.1: the target's record takes the place of this one, its exp= included.
        check.count_term("redirect=")
        target = await _expand_name(check, record.redirect, domain)
        record = await _lookup_record(check, target) if _has_policy_name(target) else None
        if record is None:
            raise _Stop(Result.PERMERROR, f"redirect= of {domain} leads to no record")
        domain = target
    return _Verdict(Result.NONE, f"{domain} has no record", domain)


async def _lookup_record(check: _Check, domain: str) -> Record | None:
    """RFC 7208 sections 4.4 to 4.6; ``None``: the domain publishes none."""
    answer = await check.resolver.txt(domain)
    if answer.status is DnsStatus.TEMPERROR:
        raise _Stop(Result.TEMPERROR, f"TXT of {domain}: {answer.detail}")
    texts = select_records(answer.records)
    if not texts:
        return None
    if len(texts) > 1:
        raise _Stop(Result.PERMERROR, f"{domain} has {len(texts)} records")
    record = parse_record(texts[0])
    if isinstance(record, BadRecord):
        raise _Stop(Result.PERMERROR, f"record of {domain}: {record.reason}")
    return record


async def _matches(check: _Check, directive: _Asking, domain: str) -> bool:
    """RFC 7208 section 5, the mechanisms that ask the DNS."""
    match directive:
        case Include():
            return await _matches_include(check, directive, domain)
        case Hosts():
            return await _matches_hosts(check, directive, domain)
        case MailExchangers():
            return await _matches_mail_exchangers(check, directive, domain)
        case Pointer():
            return await _matches_pointer(check, directive, domain)
        case Exists():
            return await _matches_exists(check, directive, domain)
        case _:
            assert_never(directive)


async def _matches_include(check: _Check, directive: Include, domain: str) -> bool:
    # RFC 7208 section 5.2, the table at its end. temperror and permerror of the other record end this check, too.
    target = await _expand_name(check, directive.target, domain)
    verdict = await _check_host(check, target) if _has_policy_name(target) else None
    if verdict is None or verdict.result is Result.NONE:
        raise _Stop(Result.PERMERROR, f"{directive.text[:60]!r} of {domain} leads to no record")
    return verdict.result is Result.PASS


async def _matches_hosts(check: _Check, directive: Hosts, domain: str) -> bool:
    # RFC 7208 section 5.3.
    target = await _expand_target(check, directive.target, domain)
    answer = await _lookup_addresses(check, target)
    _raise_temperror(answer.status, answer.detail, target)
    if not answer.records:
        check.count_void(directive.text)
    return _holds(check, answer, directive.masks)


async def _matches_mail_exchangers(check: _Check, directive: MailExchangers, domain: str) -> bool:
    # RFC 7208 section 5.4. A domain without MX has no implicit one here.
    target = await _expand_target(check, directive.target, domain)
    exchangers = await check.resolver.mx(target)
    _raise_temperror(exchangers.status, exchangers.detail, target)
    void = True
    # By preference and name, so that with more than ten the outcome does not hang on the order of the answer.
    for number, (_, host) in enumerate(sorted(exchangers.records), start=1):
        if number > MAX_HOSTS:
            # RFC 7208 section 4.6.4: querying an eleventh is a permerror, a match before it is not.
            raise _Stop(Result.PERMERROR, f"{target} has more than {MAX_HOSTS} mail exchangers")
        answer = await _lookup_addresses(check, host)
        _raise_temperror(answer.status, answer.detail, host)
        if _holds(check, answer, directive.masks):
            return True
        void = void and not answer.records
    if void:
        # The limit counts terms: mail exchangers of which one has an address of this family are no void look-up.
        check.count_void(directive.text)
    return False


async def _matches_pointer(check: _Check, directive: Pointer, domain: str) -> bool:
    # RFC 7208 section 5.5. Names outside of the target cannot match, so their addresses are not asked for.
    target = dns_name(await _expand_target(check, directive.target, domain))
    for name in await _lookup_names(check):
        if target is not None and _is_within(name, target) and await _is_proven(check, name):
            return True
    return False


async def _matches_exists(check: _Check, directive: Exists, domain: str) -> bool:
    # RFC 7208 section 5.7: type A, whatever the client's address is.
    target = await _expand_name(check, directive.target, domain)
    answer = await check.resolver.a(target)
    _raise_temperror(answer.status, answer.detail, target)
    if not answer.records:
        check.count_void(directive.text)
    return bool(answer.records)


async def _lookup_addresses(check: _Check, name: str) -> Answer[IPv4Address] | Answer[IPv6Address]:
    return await (check.resolver.a(name) if check.version == 4 else check.resolver.aaaa(name))


def _holds(check: _Check, answer: Answer[IPv4Address] | Answer[IPv6Address], masks: tuple[int, int]) -> bool:
    mask = masks[0] if check.version == 4 else masks[1]
    return any((int(address) ^ check.address) & mask == 0 for address in answer.records)


def _raise_temperror(status: DnsStatus, detail: str, name: str) -> None:
    if status is DnsStatus.TEMPERROR:
        # RFC 7208 section 5: a DNS fault within a mechanism ends the check.
        raise _Stop(Result.TEMPERROR, f"{name[:80]!r}: {detail}")


# --- the names of the client ------------------------------------------------------------------------------------------


async def _lookup_names(check: _Check) -> list[str]:
    """The names that the client's reverse zone gives it. Whoever owns that zone is not the domain's owner, so neither a
    missing answer nor a fault there counts against the domain (RFC 7208 section 5.5)."""
    if check.names is None:
        answer = await check.resolver.ptr(check.ip)
        # RFC 7208 section 4.6.4: the names behind the tenth are ignored.
        names = (dns_name(name) for name in answer.records[:MAX_HOSTS])
        check.names = [name for name in names if name is not None]
    return check.names


async def _is_proven(check: _Check, name: str) -> bool:
    """Does the name lead back to the client? A DNS fault only skips the name (RFC 7208 section 5.5)."""
    if name not in check.proven:
        answer = await _lookup_addresses(check, name)
        check.proven[name] = any(int(address) == check.address for address in answer.records)
    return check.proven[name]


async def _proven_name(check: _Check, domain: str) -> str:
    """RFC 7208 section 7.3, ``p``: the domain itself before a name under it before any other, else ``unknown``."""
    names = await _lookup_names(check)
    for name in sorted(names, key=lambda name: (name != domain, not _is_within(name, domain))):
        if await _is_proven(check, name):
            return name
    return "unknown"


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


# --- macros -----------------------------------------------------------------------------------------------------------


async def _expand_target(check: _Check, target: MacroString | None, domain: str) -> str:
    return domain if target is None else await _expand_name(check, target, domain)


async def _expand_name(check: _Check, string: MacroString, domain: str) -> str:
    """A domain-spec as a name to ask for. It may be no legal name: then it does not exist (RFC 7208 section 4.8)."""
    if string.literal is not None:
        name = string.literal
    elif string.letters & {"s", "l"} and not check.local.isascii():
        # RFC 8616 section 4: with such a local part these macros make no name, so that the term cannot match.
        return _NO_NAME
    else:
        name = expand(string, await _macro_values(check, string, domain))
    name = name.removesuffix(".")
    if len(name) > MAX_NAME:
        # RFC 7208 section 7.3: labels go from the left until the rest fits.
        name = name[-MAX_NAME - 1 :].partition(".")[2]
    return (dns_name(name) or name) if name.isascii() else _NO_NAME


def _has_policy_name(name: str) -> bool:
    """RFC 7208 section 4.3, for the target of include and redirect."""
    return "." in name and dns_name(name) is not None


async def _macro_values(check: _Check, string: MacroString, domain: str) -> dict[str, str]:
    """RFC 7208 section 7.2."""
    values = {
        "s": f"{check.local}@{check.sender_domain}",
        "l": check.local,
        "o": check.sender_domain,
        "d": domain,
        "h": check.helo,
        "c": str(check.ip),
        "r": check.receiver or "unknown",
        "t": str(int(check.now.timestamp())),
    }
    if "i" in string.letters:
        values["i"] = str(check.ip) if check.version == 4 else ".".join(f"{check.address:032X}")
    if "v" in string.letters:
        values["v"] = "in-addr" if check.version == 4 else "ip6"
    if "p" in string.letters:
        values["p"] = await _proven_name(check, domain)
    return values


async def _explain(check: _Check, verdict: _Verdict) -> str | None:
    """RFC 7208 section 6.2: whatever goes wrong here, there is no explanation and the result stays."""
    if verdict.record is None or verdict.record.explanation is None:
        return None
    answer = await check.resolver.txt(await _expand_name(check, verdict.record.explanation, verdict.domain))
    if len(answer.records) != 1 or len(answer.records[0]) > MAX_EXPLANATION or not answer.records[0].isascii():
        return None
    string = parse_explanation(answer.records[0].decode("ascii"))
    if string is None:
        return None
    text = expand(string, await _macro_values(check, string, verdict.domain))
    # A local part or a HELO name may hold what a reply must not: only printable ASCII goes out.
    return text if text.isascii() and text.isprintable() and len(text) <= MAX_EXPLANATION else None
