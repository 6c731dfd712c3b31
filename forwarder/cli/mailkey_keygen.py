"""How does a domain get its mailkey? A key file that nobody else can read; an existing file is never overwritten."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder.cli.options import checked, domain, selector
from forwarder.keys import KeyFileError, generate_ed25519, generate_rsa

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--domain", type=checked(domain), required=True, help="the domain whose mail it will sign")
    add("--selector", type=checked(selector), default="", help="the key's name (default: the unnamed key)")
    add("--out", type=Path, help="the file (default: mailkey-DOMAIN.pem, mailkey-DOMAIN-SELECTOR.pem)")
    add("--rsa", action="store_true", help="RSA with 2048 bits (default: Ed25519)")


def run(args: argparse.Namespace) -> int:
    named = f"-{args.selector}" if args.selector else ""
    file: Path = args.out or Path(f"mailkey-{args.domain}{named}.pem")
    try:
        (generate_rsa if args.rsa else generate_ed25519)(file)
    except KeyFileError as error:
        print(f"forwarder mailkey keygen: {error}", file=sys.stderr)
        return 1
    option = f" --selector {args.selector}" if args.selector else ""
    print(f"Wrote {file}. Its DNS record:\n  forwarder mailkey record --key {file} --domain {args.domain}{option}")
    return 0
