"""What does a reversible address, or a reply address, stand for, and which secret made it? Exit code 1: it is not valid."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder import srs
from forwarder.app import SystemClock
from forwarder.config import ConfigError, load
from forwarder.keys import KeyFileError, load_secrets
from forwarder.mail.address import AddressError, parse_address

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", help="the reversible address, or one from a rewritten From (reply=...)")
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    try:
        secrets = load_secrets(load(args.config).srs.secret_file)
        address = parse_address(args.address)
    except (ConfigError, KeyFileError, AddressError) as error:
        print(f"forwarder srs decode: {error}", file=sys.stderr)
        return 2
    today = SystemClock().now().date()
    read = srs.decode_reply if srs.is_reply(address.local) else srs.decode
    match read(address, secrets, today):
        case srs.WhyNot() as why:
            print(why.value)
            return 1
        case srs.Reversed(sender):
            print(sender)
        case srs.Token():
            print("opaque: the store knows the sender")
        case srs.OneWay():
            print("one-way: bounces end here")
    secret = srs.made_with(address, secrets, today)
    assert secret is not None, "it verified"
    print(f"made with secret {secrets.index(secret) + 1} of {len(secrets)}")
    return 0
