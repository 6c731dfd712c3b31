"""What happened to a message? Its life, and that of its reports, as a timeline."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from forwarder.app import StartError, State, open_state
from forwarder.config import ConfigError, load
from forwarder.mail.dsn import parse_report
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address
from forwarder.ports import StoreAway, Traced
from forwarder.telemetry import SilentJournal, redact

__all__ = ["add_arguments", "run"]

#: Octets of a report that are read.
MAX_REPORT = 40 * 1024 * 1024

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", help="a Message-ID, an address (sender, alias, destination, reversible), or an id of ours"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="the message that this delivery report is about")
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="messages at most, the latest (default: 10)")
    parser.add_argument("--full", action="store_true", help="addresses in full")
    parser.add_argument("--json", action="store_true", help="one JSON object an event")


def run(args: argparse.Namespace) -> int:
    if (args.what is None) is (args.report is None):
        print("forwarder trace: name what to look for, or --report FILE", file=sys.stderr)
        return 2
    try:
        settings = load(args.config)
        wanted = [args.what] if args.report is None else _wanted(args.report)
        return asyncio.run(_trace(args, wanted, settings))
    except (ConfigError, StartError, StoreAway, OSError, MalformedMessage) as error:
        print(f"forwarder trace: {error}", file=sys.stderr)
        return 1


def _wanted(file: Path) -> list[str]:
    """What a report says of the message it is about."""
    with file.open("rb") as opened:
        raw = opened.read(MAX_REPORT)
    report = parse_report(parse_message(raw if b"\r\n" in raw else raw.replace(b"\n", b"\r\n")))
    if report is None:
        raise MalformedMessage(f"{file} is no delivery report")
    return [report.message_id] if report.message_id is not None else []


async def _trace(args: argparse.Namespace, wanted: Sequence[str], settings: Any) -> int:
    journal = _Telling()
    async with open_state(settings, journal) as state:
        lives = await _find(state, journal, wanted, args.limit)
    if not lives and not journal.away:
        kept = f"traces are kept for {settings.trace.keep:g} days" if settings.trace.keep else "trace.keep is 0"
        print(f"forwarder trace: nothing is known of that; {kept}", file=sys.stderr)
        return 1
    for life in lives:
        if args.json:
            _print_json(life, full=args.full)
        else:
            _print(life, full=args.full)
    if journal.away:
        # A cluster: each part is at a server of its own.
        print(f"forwarder trace: not all could be looked for; {journal.away}", file=sys.stderr)
    return 1 if journal.away else 0


class _Telling(SilentJournal):
    """Remembers why something could not be looked for."""

    away = ""

    def event(self, name: str, /, **fields: Any) -> None:
        if name == "trace.part_away":
            self.away = fields["reason"]


async def _find(state: State, journal: _Telling, wanted: Iterable[str], limit: int) -> list[Traced]:
    """The messages, each followed by what is about it: its reports."""
    ids: dict[str, None] = {}
    for text in wanted:
        for name in _spellings(text):
            ids |= dict.fromkeys(await _ask(state, journal, state.traces.find(name), ()))
        ids |= {text: None}
    found: dict[str, Traced] = {}
    for id_ in list(ids):
        for one in (id_, *reversed(await _ask(state, journal, state.traces.find(id_), ()))):
            if one in found:
                continue
            life = await _ask(state, journal, state.traces.read(one), None)
            if life is not None:
                found[one] = life
        if len(found) >= limit:
            break
    return list(found.values())[:limit]


async def _ask(state: State, journal: _Telling, asking: Awaitable[T], otherwise: T) -> T:
    try:
        return await asking
    except StoreAway as away:
        if not state.traces.is_spread:
            raise
        journal.event("trace.part_away", reason=str(away))
        return otherwise


def _spellings(text: str) -> list[str]:
    """As it may have been kept: addresses in lower case, a Message-ID with its brackets."""
    bare = text.strip().removeprefix("<").removesuffix(">")
    return list(dict.fromkeys((text, bare, bare.lower(), f"<{bare}>")))


# --- what is shown ------------------------------------------------------------------------------------------------------


def _print(life: Traced, *, full: bool) -> None:
    events = sorted(life.events, key=lambda one: one.at)
    began = events[0].at if events else 0.0
    print(f"{_plain(life.id)}  {datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M:%S} UTC")
    for event in events:
        told = "  ".join(f"{key}={_shown(key, value, full=full)}" for key, value in event.fields.items())
        print(f"  {_since(event.at - began):>10}  {event.name:<20}  {told}")
    if life.dropped:
        print(f"  incomplete: {life.dropped} events or groups of them are missing")
    print()


def _print_json(life: Traced, *, full: bool) -> None:
    for event in sorted(life.events, key=lambda one: one.at):
        fields = {key: _value(key, value, full=full) for key, value in event.fields.items()}
        line = {"id": life.id, "time": datetime.fromtimestamp(event.at, UTC), "event": event.name} | fields
        print(msgspec.json.encode(line).decode())
    if life.dropped:
        print(msgspec.json.encode({"id": life.id, "event": "incomplete", "missing": life.dropped}).decode())


def _since(seconds: float) -> str:
    if seconds < 120:
        return f"+{seconds:.3f} s"
    return f"+{seconds / 60:.0f} min" if seconds < 7200 else f"+{seconds / 3600:.1f} h"


def _value(key: str, value: Any, *, full: bool) -> Any:
    if isinstance(value, list):
        return [_value(key, one, full=full) for one in value]
    if isinstance(value, str):
        return value if full else redact(key, value)
    if not isinstance(value, Address):
        return value
    return str(value) if full else f"{value.local[:1]}***@{value.domain}"


def _shown(key: str, value: Any, *, full: bool) -> str:
    value = _value(key, value, full=full)
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return _plain(text) if " " not in text else f'"{_plain(text)}"'


def _plain(text: str) -> str:
    """What strangers wrote does not reach the terminal as they wrote it."""
    return text if text.isprintable() else ascii(text)[1:-1]
