"""Which keys are in use, does the DNS show them, and how does the next one come in? ``status`` and ``rotate`` of mailkey and
DKIM keys."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forwarder.app import StartError, SystemClock, key_state, load_keys, make_resolvers
from forwarder.cli.dnsrecords import Record, render
from forwarder.cli.options import checked, domain, nameserver, selector
from forwarder.config import ConfigError, Settings, load
from forwarder.keys import Key, KeyFileError, dkim_record, load_key, mailkey_record, record_name
from forwarder.keys.published import Finding, Seen, agree, look_up_everywhere
from forwarder.keys.ring import Slot
from forwarder.keys.staged import stage
from forwarder.keys.usage import Role, Usage, roles

__all__ = ["add_rotate_arguments", "add_status_arguments", "rotate", "status"]

#: Exit codes of status: as it should be; the DNS does not show a key that is in use; it cannot be told.
OK, WRONG, CANNOT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str
    key: Key
    role: Role
    may_go: datetime | None
    servers: dict[str, Finding]

    @property
    def advice(self) -> str:
        name = record_name(self.kind, self.key)
        match self.role:
            case Role.STAGED:
                seen = agree(self.servers.values()).seen
                if seen is Seen.HERE:
                    return "the service switches at its next look, within half a minute"
                return "publish its record; the service switches when every server shows it"
            case Role.IN_USE:
                return "keep its record" if _is_fine(self) else "publish its record: the service does not sign with it"
            case Role.RETIRING | Role.RETIRED if self.kind == "mailkey" and not self.key.selector:
                return f"keep {name}: it carries the policy (o=)"
            case Role.RETIRING:
                return (
                    f"keep its record until {self.may_go:%Y-%m-%d %H:%M} UTC: signatures made with it are on their way"
                )
            case Role.RETIRED if self.may_go is None:
                return "never seen in use; its record may go 14 days after the switch at the latest"
            case _:
                return f"its record and {self.key.path} may go"


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")
    add(
        "--at",
        type=checked(nameserver),
        action="append",
        default=[],
        metavar="SERVER",
        help="ask this name server too, repeatable: the zone's own, a public resolver",
    )
    add("--json", action="store_true")


def add_rotate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")
    add("--domain", type=checked(domain), help="only the keys of this domain (default: all)")
    add("--key", help="only the configured key with this selector", metavar="SELECTOR")
    add("--selector", type=checked(selector), help="the new key's name (default: with today's date)")


def status(args: argparse.Namespace, kind: str) -> int:
    try:
        lines = asyncio.run(_look(load(args.config), kind, args.at))
    except (ConfigError, KeyFileError, StartError, OSError, ValueError) as error:
        print(f"forwarder {kind} status: {error}", file=sys.stderr)
        return CANNOT
    if args.json:
        print(json.dumps([_fields(one) for one in lines], indent=1))
    else:
        for line in lines:
            _print(line)
    in_use = [agree(one.servers.values()).seen for one in lines if one.role is Role.IN_USE]
    if any(seen in (Seen.MISSING, Seen.DIFFERENT) for seen in in_use):
        return WRONG
    return CANNOT if Seen.UNKNOWN in in_use else OK


def rotate(args: argparse.Namespace, kind: str) -> int:
    try:
        settings = load(args.config)
        slots = [one for one in _slots(settings, kind) if _is_meant(one, args)]
        if not slots:
            raise ValueError("no such key in the configuration")
        usage, clock = Usage(key_state(settings)), SystemClock()
        made = [_next_key(slot, usage, clock.now(), args.selector) for slot in slots]
    except (ConfigError, KeyFileError, OSError, ValueError) as error:
        print(f"forwarder {kind} rotate: {error}", file=sys.stderr)
        return 1
    print("Publish, and leave the records that are there:\n")
    text = dkim_record if kind == "dkim" else mailkey_record
    print(render(Record(record_name(kind, one), "TXT", text(one)) for one in made))
    print(
        f"\nThe service switches when the DNS shows it. How far it is: forwarder {kind} status --config {args.config}"
    )
    return 0


def _slots(settings: Settings, kind: str) -> Iterator[Slot]:
    """Those of this kind with what is staged; ARC seals with a DKIM key, which is shown once."""
    seen: set[Path | None] = set()
    for slot in load_keys(settings).slots:
        path = slot.configured[0].path
        if slot.kind == kind and path not in seen:
            seen.add(path)
            yield slot.take_up()[0]


def _is_meant(slot: Slot, args: argparse.Namespace) -> bool:
    key = slot.configured[0]
    return args.domain in (None, key.domain) and args.key in (None, key.selector)


def _next_key(slot: Slot, usage: Usage, now: datetime, name: str | None) -> Key:
    """The one that is staged already, or a new one: run twice, it stages once."""
    newest, role, _ = roles(slot, usage, now)[0]
    if role is Role.STAGED:
        return newest
    key = slot.configured[0]
    if key.path is None:
        raise ValueError("the key has no file")
    return load_key(stage(key, key.path, now.date(), name))


async def _look(settings: Settings, kind: str, others: list[str]) -> list[_Line]:
    resolvers = make_resolvers(settings, others)
    usage, now = Usage(key_state(settings)), SystemClock().now()
    lines = []
    for slot in _slots(settings, kind):
        for key, role, may_go in roles(slot, usage, now):
            found = await look_up_everywhere(list(resolvers.values()), kind, key)
            lines.append(_Line(kind, key, role, may_go, dict(zip(resolvers, found, strict=True))))
    return lines


def _is_fine(line: _Line) -> bool:
    return agree(line.servers.values()).seen in (Seen.HERE, Seen.UNKNOWN)


def _print(line: _Line) -> None:
    print(f"{record_name(line.kind, line.key)}  {line.role.value}  ({line.key.algorithm}, {line.key.path})")
    for server, finding in line.servers.items():
        print(f"  {server}: {finding.seen.value}" + (f": {finding.reason}" if finding.reason else ""))
    print(f"  {line.advice}")
    if line.role in (Role.STAGED, Role.IN_USE) and agree(line.servers.values()).seen is not Seen.HERE:
        text = dkim_record if line.kind == "dkim" else mailkey_record
        print("  " + render([Record(record_name(line.kind, line.key), "TXT", text(line.key))]))


def _fields(line: _Line) -> dict[str, object]:
    return {
        "record": record_name(line.kind, line.key),
        "domain": line.key.domain,
        "selector": line.key.selector,
        "algorithm": line.key.algorithm,
        "file": str(line.key.path),
        "role": line.role.value,
        "servers": {name: {"seen": one.seen.value, "reason": one.reason} for name, one in line.servers.items()},
        "record_may_go": line.may_go.isoformat() if line.may_go is not None else None,
        "advice": line.advice,
    }
