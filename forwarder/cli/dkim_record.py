"""What is to be published for a DKIM key? The TXT record in zone-file form (RFC 6376 section 3.6.1)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder.cli.dnsrecords import Record, render
from forwarder.cli.options import checked, domain, needed_selector
from forwarder.keys import KeyFile, KeyFileError, dkim_name, dkim_record, load_key

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--key", type=Path, required=True, help="the file with the private key")
    add("--domain", type=checked(domain), required=True)
    add("--selector", type=checked(needed_selector), required=True, help="the key's name (s=)")


def run(args: argparse.Namespace) -> int:
    try:
        key = load_key(KeyFile(args.domain, args.selector, args.key))
    except KeyFileError as error:
        print(f"forwarder dkim record: {error}", file=sys.stderr)
        return 1
    print(render([Record(dkim_name(key), "TXT", dkim_record(key))]))
    return 0
