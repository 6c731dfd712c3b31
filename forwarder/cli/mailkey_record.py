"""What is to be published for a mailkey? The TXT record in zone-file form."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from forwarder.cli.dnsrecords import Record, render
from forwarder.cli.options import checked, domain, selector
from forwarder.keys import LEAST_MAILKEY_BITS, KeyFile, KeyFileError, load_key, mailkey_name, mailkey_record

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--key", type=Path, required=True, help="the file with the private key")
    add("--domain", type=checked(domain), required=True)
    add("--selector", type=checked(selector), default="", help="the key's name (default: the unnamed key)")
    add("--policy", choices=("test", "some", "all"), default="all", help="how much of the domain's mail is signed")


def run(args: argparse.Namespace) -> int:
    try:
        key = load_key(KeyFile(args.domain, args.selector, args.key), least_bits=LEAST_MAILKEY_BITS)
    except KeyFileError as error:
        print(f"forwarder mailkey record: {error}", file=sys.stderr)
        return 1
    print(render([Record(mailkey_name(key), "TXT", mailkey_record(key, args.policy))]))
    return 0
