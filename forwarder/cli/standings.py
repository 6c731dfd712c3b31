"""How are subjects named and shown? For the commands that tell of what is held against whom."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from forwarder.app import StartError, State, SystemClock, open_state
from forwarder.cli.queueview import plain
from forwarder.config import ConfigError, Settings, load
from forwarder.mail.address import AddressError, ascii_domain, parse_address
from forwarder.ports import Standing, Subject, SubjectKind
from forwarder.standing import faded
from forwarder.telemetry import SilentJournal

__all__ = [
    "Command",
    "SubjectError",
    "add_command",
    "facts",
    "find_subject",
    "now",
    "run_command",
    "show_facts",
    "when",
]

Command = Callable[[argparse.Namespace, State, Settings], Awaitable[int]]


class SubjectError(Exception):
    """What the operator named is no subject; the text says why."""


def add_command(
    commands: Any, name: str, summary: str, command: Command, *, subject: bool = True
) -> argparse.ArgumentParser:
    """A sub-command, with what all of them take."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"))
    parser.add_argument("--json", action="store_true", help="JSON, one object a line")
    if subject:
        parser.add_argument("subject", metavar="SUBJECT")
    parser.set_defaults(action=command)
    return parser


def run_command(args: argparse.Namespace, program: str) -> int:
    """Within the store of the service that runs, or that it left."""

    async def main() -> int:
        settings = load(args.config)
        async with open_state(settings, SilentJournal()) as state:
            command: Command = args.action
            return await command(args, state, settings)

    try:
        return asyncio.run(main())
    except SubjectError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (ConfigError, StartError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1


def find_subject(text: str, kinds: Sequence[SubjectKind]) -> Subject:
    """``kind:name``, or the name alone where it can only be one of ``kinds``. Raises SubjectError."""
    word, colon, name = text.partition(":")
    named = next((one for one in kinds if colon and one.value == word), None)
    name = name if named is not None else text
    for kind in (named,) if named is not None else kinds:
        found = _name(kind, name)
        if found is not None:
            return Subject(kind, found)
    raise SubjectError(f"{text!r} is none of these: {', '.join(kinds)}")


def _name(kind: SubjectKind, text: str) -> str | None:
    try:
        if kind is SubjectKind.NETWORK:
            network = ip_network(text, strict=False)
            wide = 24 if network.version == 4 else 64
            return str(network.supernet(new_prefix=wide) if network.prefixlen > wide else network)
        if kind in (SubjectKind.DOMAIN, SubjectKind.PROVIDER):
            return None if "@" in text else ascii_domain(parse_address(f"x@{text}").domain)
        return str(parse_address(text)).lower()
    except (AddressError, ValueError):
        return None


def facts(standing: Standing, now: datetime) -> dict[str, Any]:
    """All that is known, with the numbers of now."""
    score, mail = faded(standing, now)
    return {
        "subject": str(standing.subject),
        "score": round(score, 2),
        "mail": round(mail),
        "forgotten_at": standing.over_at,
        "evidence": [
            {
                "at": one.at,
                "what": one.what,
                "weight": round(one.weight, 3),
                "source": one.source,
                "message": one.message,
            }
            for one in reversed(standing.evidence)
        ],
    }


def show_facts(shown: dict[str, Any]) -> None:
    """For people: one a line, the evidence below."""
    for name, value in shown.items():
        if name != "evidence":
            text = when(value) if isinstance(value, datetime) else value
            print(f"{name + ':':<14}{plain('-' if text is None else text)}")
    print("evidence:")
    for one in shown["evidence"]:
        print(
            "    " + plain(f"{when(one['at'])}  {one['weight']:+.2f}  {one['what']}  {one['source']}  {one['message']}")
        )


def when(moment: datetime | None) -> str:
    """To the minute, UTC."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else ""


def now() -> datetime:
    """The time as this command sees it."""
    return SystemClock().now()
