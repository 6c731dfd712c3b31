"""How does a domain get a DKIM key? A key file that nobody else can read; an existing file is never overwritten."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder.cli.options import checked, domain, needed_selector
from forwarder.keys import KeyFileError, generate_ed25519, generate_rsa

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--domain", type=checked(domain), required=True, help="the domain of the signature (d=)")
    add("--selector", type=checked(needed_selector), required=True, help="the key's name (s=)")
    add("--out", type=Path, help="the file (default: dkim-DOMAIN-SELECTOR.pem)")
    add("--ed25519", action="store_true", help="Ed25519, to stand beside an RSA key (default: RSA with 2048 bits)")


def run(args: argparse.Namespace) -> int:
    file: Path = args.out or Path(f"dkim-{args.domain}-{args.selector}.pem")
    try:
        (generate_ed25519 if args.ed25519 else generate_rsa)(file)
    except KeyFileError as error:
        print(f"forwarder dkim keygen: {error}", file=sys.stderr)
        return 1
    print(
        f"Wrote {file}. Its DNS record:\n"
        f"  forwarder dkim record --key {file} --domain {args.domain} --selector {args.selector}"
    )
    return 0
