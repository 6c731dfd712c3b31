"""How would mail to a domain be protected, and why? Its mail hosts, what it publishes, what the operator chose. Nothing is sent.

The policies that the service keeps are not looked at: this asks the DNS and the policy host anew.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from forwarder.app import StartError, SystemClock, make_resolver, make_sts, relay_settings
from forwarder.config import ConfigError, Settings, load
from forwarder.keys import KeyFileError
from forwarder.model import Deferred, Failed
from forwarder.ports import StoreAway, StsPolicy
from forwarder.relay import RelaySettings
from forwarder.relay.mx import Route, Target, lookup_route, order_targets
from forwarder.relay.tls import Dane, NoTls, Opportunistic, Required, TlsPolicy, Unlisted, Verified
from forwarder.telemetry import EventLog

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", help="where the mail would go")
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"))


def run(args: argparse.Namespace) -> int:
    try:
        settings = load(args.config)
        route, sts, relaying = asyncio.run(_look_up(settings, args.domain))
    except (ConfigError, KeyFileError, StartError, OSError, ValueError) as error:
        print(f"forwarder tls: {error}", file=sys.stderr)
        return 1
    if not isinstance(route, Route):
        reply = f": {route.reply}" if route.reply is not None else ""
        print(f"forwarder tls: {args.domain}: {route.reason}{reply}", file=sys.stderr)
        return 1
    for line in _lines(route, sts, relaying):
        print(line)
    return 0


class _NothingKept:
    """``ports.PolicyStore`` without a store."""

    async def look_up_policy(self, domain: str) -> tuple[StsPolicy, int] | None:
        raise StoreAway

    async def put_policy(self, domain: str, policy: StsPolicy) -> None:
        """It is looked at once."""


async def _look_up(
    settings: Settings, domain: str
) -> tuple[Route | Deferred | Failed, StsPolicy | None, RelaySettings]:
    resolver, relaying = make_resolver(settings), relay_settings(settings)
    sts = None
    client = make_sts(settings, resolver, _NothingKept(), EventLog(sys.stderr, SystemClock(), pretty=True), None)
    if client is not None and not relaying.tls.excepts(domain):
        sts = await client.policy(domain)
    return await lookup_route(resolver, domain, relaying, random.Random()), sts, relaying


def _lines(route: Route, sts: StsPolicy | None, relaying: RelaySettings) -> Iterator[str]:
    named = relaying.tls.named(route.domain)
    yield f"{route.domain}: {'MX signed' if route.authentic else 'MX not signed, or the resolver is not trusted to say so'}"
    yield f"  [relay.tls]  {named or relaying.tls.default}{'' if named else ' (the default)'}"
    yield f"  MTA-STS      {f'{sts.mode.value}, {chr(32).join(sts.hosts)}' if sts is not None else 'no policy'}"
    if route.trouble is not None:
        yield f"  not all known: {route.trouble}"
    for target in order_targets(route, random.Random(0)):
        policy = relaying.tls.policy(route.domain, target.host, target.dane, sts)
        yield f"  {target.preference:>3} {target.peer}: {_describe(policy, target)}"


def _describe(policy: TlsPolicy, target: Target) -> str:
    match policy:
        case Dane(records=records):
            known = ", ".join(f"{one.usage} {one.selector} {one.matching} {one.data.hex()[:16]}" for one in records)
            return f"TLS with a certificate that TLSA records of {policy.base} name ({known})"
        case Required():
            why = "; its TLSA records are of no use" if target.dane is not None else ""
            return f"TLS with whatever certificate, or the mail waits{why}"
        case Opportunistic():
            return "TLS where it works, else in clear"
        case NoTls():
            return "in clear"
        case Unlisted():
            return "not used: the MTA-STS policy does not name it"
        case Verified(names=names):
            return f"TLS with a valid certificate for {' or '.join(names)}" + (
                ", or the mail waits" if policy.required else "; what fails is only told, as the policy is in testing"
            )
        case _:
            assert_never(policy)
