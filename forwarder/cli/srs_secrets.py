"""Which SRS secrets are there, and how does a new one come in? Never shows one."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

from forwarder.app import StartError, SystemClock, open_state
from forwarder.config import ConfigError, Settings, load
from forwarder.keys import KeyFileError, load_secrets, read_private
from forwarder.srs import CLOCK_SKEW_DAYS, MAX_AGE_DAYS, secret_name
from forwarder.telemetry import SilentJournal

__all__ = ["add_arguments", "run"]

#: Days for which an address is good after the last day on which its secret minted.
KEEP = timedelta(days=MAX_AGE_DAYS + CLOCK_SKEW_DAYS)
_SINCE = re.compile(rb"# mints since (\d{4}-\d\d-\d\d)\Z")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("status", "rotate"))
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        settings = load(args.config)
        file = settings.srs.secret_file
        load_secrets(file)
        if args.action == "rotate":
            _put_on_top(file, SystemClock().now().date())
            print(f"A new secret is on top of {file}. Restart the service: it mints from then on, and all verify.")
        seen = asyncio.run(_seen(settings))
        for line in _told(file, seen):
            print(line)
    except (ConfigError, KeyFileError, StartError, OSError) as error:
        print(f"forwarder srs secrets: {error}", file=sys.stderr)
        return 1
    return 0


def _put_on_top(file: Path, today: date) -> None:
    """Whole or not at all; the owner stays. A symbolic link stays one."""
    file = file.resolve()
    old = read_private(file)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            facts = file.stat()
            if facts.st_uid != os.geteuid():
                os.fchown(descriptor, facts.st_uid, facts.st_gid)
            out.write(f"# mints since {today}\n{secrets.token_urlsafe(32)}\n".encode() + old)
            out.flush()
            os.fsync(descriptor)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


async def _seen(settings: Settings) -> dict[bytes, date]:
    """When a report last came to an address of each secret, as the store has it."""
    if settings.store == "embedded" and not (settings.state_dir / "store").is_dir():
        return {}
    async with open_state(settings, SilentJournal()) as state:
        return await state.ledger.secrets_seen()


def _told(file: Path, seen: Mapping[bytes, date]) -> Iterator[str]:
    """A line a secret, the first first; when a secret above took over says how long this one is needed."""
    taken_over: date | None = None
    since: date | None = None
    number = 0
    for line in map(bytes.strip, read_private(file).splitlines()):
        if match := _SINCE.match(line):
            since = date.fromisoformat(match[1].decode())
        if not line or line.startswith(b"#"):
            continue
        number += 1
        told = f"secret {number}: " + (f"since {since}, " if since is not None else "")
        if number == 1:
            told += "mints"
        elif taken_over is None:
            told += "verifies; may go 22 days after the reload with the secret above it"
        else:
            told += f"verifies; may go on {taken_over + KEEP}, if the service was reloaded on {taken_over}"
        last = seen.get(secret_name(line))
        yield told + (f"; a report came to an address of it on {last}" if last is not None else "; no report seen")
        taken_over, since = since, None
