"""Which reversible address does a sender get? That of today, with the first secret."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder import srs
from forwarder.app import SystemClock
from forwarder.cli.options import checked, domain
from forwarder.config import ConfigError, load
from forwarder.keys import KeyFileError, load_secrets
from forwarder.mail.address import AddressError, parse_address

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("address", help="the sender")
    add("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")
    add("--domain", type=checked(domain), help="mint under this domain (default: srs.domain)")


def run(args: argparse.Namespace) -> int:
    try:
        settings = load(args.config)
        secrets = load_secrets(settings.srs.secret_file)
        sender = parse_address(args.address)
    except (ConfigError, KeyFileError, AddressError) as error:
        print(f"forwarder srs encode: {error}", file=sys.stderr)
        return 1
    made = srs.encode(sender, args.domain or settings.srs.domain, secrets, SystemClock().now().date())
    print(made.address)
    if made.token is not None:
        print("too long to carry its sender: the service keeps that in the store when it forwards", file=sys.stderr)
    return 0
