"""What would happen to this message, and why? Verdict, route, rewritten sender, every byte added. Nothing is sent or stored.

The message is taken as if it came now, from ``--ip``, with the envelope given as options; the aliases, keys and policy are the
configuration's. A reversible address that needs the store is shown as opaque; claims and budgets are not asked. Whether a next
hop has refused such mail is, where From depends on it; content filters are, with --filters.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from forwarder import rewrite, route, screen, seal
from forwarder.app import (
    StartError,
    SystemClock,
    lenient_of,
    load_keys,
    make_key_host,
    make_resolver,
    names_of,
    policy_of,
)
from forwarder.auth.signed import sign_now
from forwarder.auth.verify import verify
from forwarder.cli.authenticate import verdict_fields
from forwarder.cli.explaincontent import explain_content
from forwarder.cli.explainfrom import explain_from
from forwarder.config import ConfigError, Settings, load
from forwarder.directory import StaticDirectory
from forwarder.edge.data import MAX_LINE, STANDARD_LINE, refuse_bytes, refuse_header
from forwarder.keys import KeyFileError
from forwarder.mail.address import AddressError, parse_address, parse_from
from forwarder.mail.header import MalformedMessage, parse_content, parse_message, split_content
from forwarder.model import Envelope, Forward, Message, Peer, Recipient, Refuse
from forwarder.ports import AliasFound, MailboxFound
from forwarder.telemetry import EventLog

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the message, as a file (.eml)")
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"))
    parser.add_argument("--ip", default="192.0.2.1", help="the client's address")
    parser.add_argument("--helo", default="unknown.invalid", help="what the client calls itself")
    parser.add_argument("--mail-from", default="", metavar="ADDRESS", help="reverse-path; empty is the null sender")
    parser.add_argument("--rcpt-to", required=True, metavar="ADDRESS", help="the alias it is for")
    parser.add_argument("--filters", action="store_true", help="ask the content filters, too: they read the message")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    try:
        settings = load(args.config)
        raw = args.file.read_bytes()
        told = asyncio.run(_explain(settings, args, raw))
    except (ConfigError, AddressError, KeyFileError, StartError, OSError, ValueError) as error:
        print(f"forwarder explain: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(msgspec.json.encode(told).decode())
    else:
        for line in _for_people(told):
            print(line)
    return 0


async def _explain(settings: Settings, args: argparse.Namespace, raw: bytes) -> dict[str, Any]:
    raw = raw if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")
    told: dict[str, Any] = {"recipient": args.rcpt_to, "sender": args.mail_from or "<>"}
    lenient = lenient_of(settings)
    refused = refuse_bytes(raw, MAX_LINE if lenient.long_lines else STANDARD_LINE)
    if refused is not None:
        return told | {"route": "refuse", "reply": str(refused), "reason": "what SMTP does not allow in a message"}
    content = split_content(raw)
    over = refuse_header(content.header, settings.limits.header_size, settings.limits.header_fields)
    if over is not None:
        return told | {"route": "refuse", "reply": str(over), "reason": "limits.header_size, limits.header_fields"}
    try:
        message = parse_content(content)
    except MalformedMessage as error:
        return told | {"route": "refuse", "reply": "550 5.6.0", "reason": str(error)}
    envelope = Envelope(
        id="explained",
        peer=Peer(ip_address(args.ip), args.helo),
        sender=parse_address(args.mail_from) if args.mail_from else None,
        recipients=(Recipient(parse_address(args.rcpt_to)),),
        received_at=SystemClock().now(),
    )
    return told | await _route(settings, envelope, message, ask=args.filters)


async def _route(settings: Settings, envelope: Envelope, message: Message, *, ask: bool) -> dict[str, Any]:
    directory = StaticDirectory.from_settings(settings)
    found = await directory.look_up(envelope.recipients[0].address)
    if not isinstance(found, AliasFound | MailboxFound):
        return {"route": "refuse", "reason": type(found).__name__, "reply": "550 at RCPT TO"}
    lenient, keys = lenient_of(settings), load_keys(settings)
    author = parse_from(message, loose_dots=lenient.dots)
    unfit = screen.screen_message(message, author, lenient) or screen.screen_loop(
        message, [found.alias], keys.srs_secrets()
    )
    if unfit is not None:
        return {"route": "refuse", "reply": str(unfit.reply), "reason": unfit.reason}
    now, names = envelope.received_at, names_of(settings)
    trusted = frozenset(settings.policy.trusted_sealers)
    resolver = make_resolver(settings)
    verdict = await verify(
        resolver,
        envelope,
        message,
        author,
        receiver=names.hostname,
        now=now,
        trusted_sealers=trusted,
        key_host=make_key_host(settings, resolver, EventLog(sys.stderr, SystemClock(), pretty=True)),
    )
    told: dict[str, Any] = {"verdict": verdict_fields(verdict)}
    resolved = (
        route.ToAlias(found.alias, found.targets, directory.srs_domain(found.alias.domain))
        if isinstance(found, AliasFound)
        else route.ToMailbox(found.alias, found.mailbox)
    )
    decided = route.decide(resolved, envelope, verdict, policy_of(settings, found.alias.domain))
    if isinstance(decided, Refuse):
        return told | {"route": "refuse", "reply": str(decided.reply), "reason": decided.reason}
    content = await explain_content(settings, envelope, message, verdict, decided.alias, ask=ask)
    told |= content.told
    if content.ended is not None:
        return told | content.ended
    filtered = content.filtered
    message = filtered.message
    if filtered.one_way is not None:
        decided = route.without_way_back(decided, filtered.one_way)
    if not isinstance(decided, Forward):
        return told | {"route": "keep", "mailbox": decided.mailbox, "reason": decided.reason}
    rewritten = rewrite.rewrite_sender(
        envelope.sender, decided, keys.srs_secrets(), now.date(), directory.is_srs_domain
    )
    group = rewrite.group_by_next_hop(decided.targets)[0]
    found_from = await explain_from(settings, decided, verdict, message, resolver, keys, now)
    if found_from.first is not None:
        message = found_from.first.message
    sealed = sign_now(
        seal.seal_message(
            message,
            envelope,
            verdict,
            decided.alias,
            srs_domain=decided.srs_domain,
            names=names,
            keys=keys,
            now=now,
            added=filtered.added,
        )
    )
    domain = decided.srs_domain if rewritten.sender is not None else names.hostname
    head, _ = sign_now(
        seal.address_to(
            sealed,
            rewritten.sender,
            group.recipients,
            domain=domain,
            keys=keys,
            now=now,
            bind=settings.mailkey.bind_recipients,
        )
    )
    added = head[: len(head) - len(sealed.message.header) - len(sealed.message.separator)]
    removed = len(message.fields) - len(sealed.message.fields)
    return told | {
        "route": "forward" if filtered.quarantine is None else "quarantine",
        "reason": filtered.quarantine or decided.reason,
        "alias": str(decided.alias),
        "targets": [str(one) for one in decided.targets],
        "sender_form": decided.sender_form.value,
        "rewritten_sender": str(rewritten.sender or "<>"),
        "opaque": rewritten.token is not None,
        "from": message.all(b"from")[0].value.decode("utf-8", "replace").strip(),
        "from_rewrite": decided.from_rewrite.value,
        "from_reason": decided.from_reason,
        "from_at": found_from.next_hops,
        "fields_removed": removed,
        "fields_added": [one.raw.decode("utf-8", "replace") for one in parse_message(added).fields],
        "octets_added": len(added),
    }


def _for_people(told: dict[str, Any]) -> Iterator[str]:
    yield f"from {told['sender']} to {told['recipient']}"
    for method, checks in told.get("verdict", {}).items():
        for check in checks if isinstance(checks, list) else [checks]:
            if isinstance(check, dict):
                why = f"  ({check['reason']})" if check.get("reason") else ""
                yield f"  {method:<20} {check['result']}{_plain(why)}"
            else:
                yield f"  {method:<20} {check or 'nothing'}"
    for one in told.get("content", ()):
        yield f"  {'content ' + one['filter']:<20} {_plain(one['found'])}"
    yield f"{told['route']}: {_plain(told['reason'])}"
    shown = "reply mailbox alias targets rewritten_sender from from_rewrite from_reason fields_removed octets_added"
    for name in shown.split():
        if told.get(name):
            yield f"  {name.replace('_', ' '):<20} {_plain(' '.join(str(told[name]).split()))}"
    for one in told.get("from_at", ()):
        yield f"  {'from at':<20} {one['next_hop']} ({one['provider']}): {one['from']}, {one['because']}"
    for field in told.get("fields_added", ()):
        yield f"  + {_plain(' '.join(field.split()))}"


def _plain(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
