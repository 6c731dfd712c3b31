"""Does the sender's domain vouch for this message, or for each message of this mbox? A line a message.

Exit code: 0 all passed, 1 some did not, 2 wrong usage, 3 the DNS did not answer for some and the rest passed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from forwarder.cli.mailfile import MAX_MESSAGE, Stored, open_mail, stored_messages
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.mailkey import MailkeyError, averify
from forwarder.ports import Resolver
from forwarder.resolver import DnsResolver, ZoneError, ZoneResolver, system_nameservers

__all__ = ["add_arguments", "read_records", "run"]

# A TXT record in zone-file form (RFC 1035 section 5.1): owner, TTL and class or not, character-strings.
_RECORD = re.compile(r'(\S+)\s+(?:\d+\s+)?(?:IN\s+)?(?:\d+\s+)?TXT\s+((?:"(?:[^"\\]|\\.)*"\s*)+)', re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mail-from", metavar="ADDRESS", help='envelope sender, "" is the null sender; else Return-Path'
    )
    parser.add_argument(
        "--rcpt-to", action="append", default=[], metavar="ADDRESS", help="envelope recipient; once for each"
    )
    parser.add_argument("--helo", default="", metavar="NAME", help="what the client called itself, for the null sender")
    parser.add_argument("--time", type=float, metavar="SECONDS", help="when it came, Unix time; now without it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--nameserver", action="append", default=[], metavar="IP[:PORT]", help="not the system's")
    source.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="ask no DNS: TXT records in zone-file form, as `record` prints them",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("file", nargs="?", help="message or mbox; standard input without it")


def run(args: argparse.Namespace) -> int:
    try:
        with open_mail(args.file) as file:
            return asyncio.run(_verify_all(file, args))
    except BrokenPipeError:
        raise
    except (OSError, OverflowError, ValueError) as error:
        print(f"forwarder mailkey verify: {error}", file=sys.stderr)
        return 2


async def _verify_all(file: BinaryIO, args: argparse.Namespace) -> int:
    resolver = _resolver(args)
    results: set[str] = set()
    try:
        for number, stored in enumerate(stored_messages(file), 1):
            told = {"message": number, **await _verify(stored, resolver, args)}
            results.add(told["result"])
            print(msgspec.json.encode(told).decode() if args.json else _line(told), flush=True)
    finally:
        if isinstance(resolver, DnsResolver):
            await resolver.aclose()
    if not results:
        raise MailkeyError("there is no message")
    if results <= {"pass", "temperror"}:
        return 3 if "temperror" in results else 0
    return 1


async def _verify(stored: Stored, resolver: Resolver, args: argparse.Namespace) -> dict[str, Any]:
    if stored.raw is None:
        return {"result": "permerror", "reason": f"larger than {MAX_MESSAGE} octets"}
    mail_from = _return_path(stored.message) if args.mail_from is None else args.mail_from
    if mail_from is None:
        return {"result": "none", "reason": "envelope sender unknown: give --mail-from, there is no Return-Path"}
    try:
        found = await averify(
            stored.message,
            mail_from=mail_from,
            rcpt_to=args.rcpt_to,
            helo=args.helo,
            now=None if args.time is None else datetime.fromtimestamp(args.time, UTC),
            dns=resolver,
        )
    except MailkeyError as error:
        if args.mail_from is not None:
            raise
        return {"result": "none", "reason": str(error)}
    return {"mail_from": mail_from, **asdict(found)}


def _return_path(message: bytes) -> str | None:
    """RFC 5321 section 4.4: the server that delivers writes the reverse-path there, on top."""
    try:
        field = parse_message(message if b"\r\n" in message else message.replace(b"\n", b"\r\n")).first(b"return-path")
    except MalformedMessage:
        return None
    return None if field is None else field.value.decode("utf-8", "replace").strip()


def _line(told: dict[str, Any]) -> str:
    details = [f"{name}={_plain(told[name])}" for name in told if name not in ("message", "result", "reason")
               and told[name] is not None]  # fmt: skip
    reason = told["reason"]
    return f"{told['message']:>4}  {told['result']:<9}  {', '.join(details)}{f'  ({_plain(reason)})' if reason else ''}"


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else ascii(text)


# --- where records come from ------------------------------------------------------------------------------------------


def _resolver(args: argparse.Namespace) -> Resolver:
    if args.records is not None:
        return read_records(args.records)
    return DnsResolver(args.nameserver or system_nameservers(), monotonic=asyncio.get_running_loop().time)


def read_records(path: Path) -> ZoneResolver:
    """What ``forwarder mailkey record`` printed, as a resolver. Raises ZoneError, and OSError where it cannot be read."""
    zone: dict[str, dict[str, list[str]]] = {}
    for name, data in _txt_records(path.read_text("utf-8", "surrogateescape")):
        zone.setdefault(name.removesuffix(".").lower(), {}).setdefault("TXT", []).append(data)
    if not zone:
        raise ZoneError(f'{path}: no TXT record in zone-file form (name. IN TXT "...")')
    return ZoneResolver(zone)


def _txt_records(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _RECORD.match(line)
        if match:
            yield match[1], match[2].strip()
