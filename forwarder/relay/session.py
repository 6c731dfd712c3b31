"""Under which policy was a mail host connected to, in the words of RFC 8460 section 4.2? Bounded, as it is counted and kept."""

from __future__ import annotations

from forwarder.auth.dnsname import dns_name
from forwarder.model import TlsResult, TlsSession
from forwarder.ports import StsMode, StsPolicy
from forwarder.relay.mx import Target
from forwarder.relay.rules import is_listed
from forwarder.relay.tls import Dane

__all__ = ["describe_session"]

#: Lines of a policy, characters of one, and of a reason.
_MAX_LINES = 20
_MAX_LINE = 200
_MAX_REASON = 100


def describe_session(
    domain: str, target: Target, sts: StsPolicy | None, result: TlsResult, reason: str = ""
) -> TlsSession:
    """What is counted of one connection. Of those that went well it does not matter to which host."""
    kind, policy, patterns = _policy_of(target, sts)
    name = dns_name(domain) or domain
    if kind == "sts" and sts is not None and not is_listed(target.host, sts):
        result, reason = TlsResult.FAILURE, "the policy does not name this host"
    if result is TlsResult.SUCCESS:
        return TlsSession(name, kind, policy, patterns)
    return TlsSession(name, kind, policy, patterns, result, target.host.lower(), target.address, reason[:_MAX_REASON])


def _policy_of(target: Target, sts: StsPolicy | None) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    if isinstance(target.dane, Dane):
        records = (f"{one.usage} {one.selector} {one.matching} {one.data.hex()}" for one in target.dane.records)
        return "tlsa", _bounded(tuple(records)), (target.dane.base,)
    if sts is not None and sts.mode is not StsMode.NONE:
        hosts = _bounded(sts.hosts)
        lines = ("version: STSv1", f"mode: {sts.mode.value}", *(f"mx: {one}" for one in hosts))
        return "sts", (*lines, f"max_age: {sts.max_age}"), hosts
    return "no-policy-found", (), ()


def _bounded(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one[:_MAX_LINE] for one in lines[:_MAX_LINES])
