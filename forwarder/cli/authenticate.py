"""What do the checks find in these messages? JSON lines in, verdicts out: for conformance suites and for operators.

One object a line: ``id``, ``message`` (base64; CRLF line ends, or LF throughout), ``ip``, ``helo``, ``mail_from`` ("" is the null
sender), ``rcpt_to`` (an address or a list), ``time`` (Unix seconds), ``authserv_id``, ``dns`` (name -> type -> list of
presentation strings; a name that is not in it is NXDOMAIN; "SERVFAIL" or "TIMEOUT" in place of a list, or under type "*", is
that fault; when given, nothing else is asked). A line that cannot be used gives ``{"id", "error"}`` and the run goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec

from forwarder.app import SystemClock
from forwarder.auth.verify import verify
from forwarder.edge.data import refuse_bytes
from forwarder.mail import authres
from forwarder.mail.address import AddressError, parse_address, parse_from
from forwarder.mail.header import MalformedMessage, parse_message
from forwarder.model import Address, Envelope, Message, Peer, Recipient, Result, Verdict
from forwarder.resolver import DnsResolver, ZoneError, ZoneResolver, system_nameservers

__all__ = ["add_arguments", "run", "verdict_fields"]

#: A line: a message of 36 MB in base64 and room for its zone.
MAX_LINE = 64 * 1024 * 1024


class _Case(msgspec.Struct):
    """``None`` is as good as absent. Keys of the suite's own (what it expects, where it is from) pass unread."""

    id: str | int | None = None
    message: str | None = None
    ip: str | None = None
    helo: str | None = None
    mail_from: str | None = None
    rcpt_to: str | list[str] | None = None
    time: float | None = None
    dns: dict[str, dict[str, list[str] | str]] | None = None
    authserv_id: str | None = None
    default_explanation: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    parser.add_argument("--nameserver", action="append", default=[], metavar="IP[:PORT]", help="for lines without dns")
    parser.add_argument("file", nargs="?", help="JSON lines; standard input without it")


def run(args: argparse.Namespace) -> int:
    source = Path(args.file).open("rb") if args.file else sys.stdin.buffer  # noqa: SIM115 - closed below, or not ours
    try:
        return asyncio.run(_run(source, args.nameserver, as_json=args.json))
    finally:
        if args.file:
            source.close()


async def _run(lines: Iterable[bytes], nameservers: Sequence[str], *, as_json: bool) -> int:
    resolver: DnsResolver | None = None
    failed = 0
    for line in lines:
        if not line.strip():
            continue
        case_id: str | int | None = None
        try:
            case = _parse_case(line)
            case_id = case.id
            if case.dns is not None:
                out = await _authenticate(case, ZoneResolver(case.dns))
            else:
                if resolver is None:
                    servers = nameservers or system_nameservers()
                    resolver = DnsResolver(servers, monotonic=asyncio.get_running_loop().time)
                out = await _authenticate(case, resolver)
        except (ValueError, AddressError, ZoneError, MalformedMessage, OSError) as error:
            out = {"id": case_id if case_id is not None else _id_of(line), "error": str(error)[:500]}
            failed += 1
        text = msgspec.json.encode(out).decode() if as_json else _table(out)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 1 if failed else 0


def _parse_case(line: bytes) -> _Case:
    if len(line) > MAX_LINE:
        raise ValueError(f"line longer than {MAX_LINE} octets")
    try:
        return msgspec.json.decode(line, type=_Case)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None


def _id_of(line: bytes) -> Any:
    """The id of a line that is otherwise unusable, so that its error can be told from others."""
    try:
        loose = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    return loose.get("id") if isinstance(loose, dict) else None


async def _authenticate(case: _Case, resolver: DnsResolver | ZoneResolver) -> dict[str, Any]:
    message = _message(case.message or "")
    now = SystemClock().now() if case.time is None else datetime.fromtimestamp(case.time, UTC)
    recipients = [case.rcpt_to] if isinstance(case.rcpt_to, str) else case.rcpt_to or []
    authserv_id = case.authserv_id or "localhost"
    envelope = Envelope(
        id="authenticate",
        peer=Peer(ip_address(case.ip or "192.0.2.1"), case.helo or "unknown.invalid"),
        sender=_sender(case.mail_from or ""),
        recipients=tuple(Recipient(parse_address(one.strip("<>"))) for one in recipients if one),
        received_at=now,
    )
    asked, began = resolver.stats.queries, time.perf_counter()
    verdict = await verify(
        resolver,
        envelope,
        message,
        parse_from(message),
        receiver=authserv_id,
        now=now,
        default_explanation=case.default_explanation,
    )
    spent = time.perf_counter() - began
    results = authres.render(authserv_id, verdict, envelope)
    return {
        "id": case.id,
        **verdict_fields(verdict),
        "authentication_results": " ".join(results.decode().split()),
        "elapsed_ms": round(spent * 1000, 3),
        "dns_queries": resolver.stats.queries - asked,
    }


def _message(text: str) -> Message:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"message: not base64: {error}") from error
    if b"\r\n" not in raw:
        raw = raw.replace(b"\n", b"\r\n")
    refused = refuse_bytes(raw)
    if refused is not None:
        raise ValueError(f"message: {refused.text}")
    return parse_message(raw)


def _sender(text: str) -> Address | None:
    """The reverse-path as stated. What SMTP's grammar refuses is still checked as it stands: suites ask what then."""
    text = text.strip().removeprefix("<").removesuffix(">")
    if not text:
        return None
    try:
        return parse_address(text)
    except AddressError:
        local, _, domain = text.rpartition("@")
        # RFC 7208 section 4.3: a sender without a local part is postmaster there.
        return Address(local, domain.lower())


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """A Verdict as JSON shows it."""
    return {
        "spf": _fields(verdict.spf, "result domain reason explanation"),
        "spf_helo": _fields(verdict.spf_helo, "result domain reason explanation"),
        "dkim": [_fields(one, "result domain selector reason") for one in verdict.dkim],
        "arc": _fields(verdict.arc, "result sets oldest_pass reason"),
        "dmarc": _fields(verdict.dmarc, "result domain policy applied aligned_by reason"),
        "mailkey": _fields(verdict.mailkey, "result domain signer selector policy bound reason")
        # The service counts whom such a signature reaches; a command that checks one message has no store to ask.
        | ({"replay": "not counted here"} if verdict.mailkey.open is not None else {}),
        "sender_verified_by": verdict.sender_verified_by,
    }


def _fields(check: object, names: str) -> dict[str, Any]:
    found = {name: getattr(check, name) for name in names.split()}
    return {name: value.value if isinstance(value, Result) else value for name, value in found.items()}


def _table(out: dict[str, Any]) -> str:
    """The same for people: a line a check."""
    lines = [f"message {out['id']}"]
    if "error" in out:
        return f"{lines[0]}\n  error     {_plain(out['error'])}"
    for method in ("mailkey", "spf", "spf_helo", "dkim", "arc", "dmarc"):
        checks = out[method] if isinstance(out[method], list) else [out[method]]
        for check in checks:
            details = ", ".join(
                f"{name}={_plain(value)}" for name, value in check.items() if name != "result" and value is not None
            )
            lines.append(f"  {method:<9} {check['result']:<10} {details}")
    lines.append(f"  {out['dns_queries']} DNS queries, {out['elapsed_ms']} ms")
    return "\n".join(lines)


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else ascii(text)
