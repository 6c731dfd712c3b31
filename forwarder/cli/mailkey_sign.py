"""How does a message get its mailkey signature before it is sent? A filter: message or mbox in, signed out.

The new field goes on top; all else is written byte for byte as it was read. A message by itself that cannot be signed
is not written at all, so that nothing leaves unsigned; in an mbox it is copied as it is, and told on standard error.
Exit code: 0 all signed, 1 something was not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import BinaryIO

from forwarder.cli.mailfile import MAX_MESSAGE, Stored, open_mail, stored_messages
from forwarder.keys import Key
from forwarder.mailkey import MailkeyError, load_key, sign

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", required=True, metavar="FILE", help="private key, made by: forwarder mailkey keygen")
    parser.add_argument("--mail-from", required=True, metavar="ADDRESS", help='envelope sender; "" is the null sender')
    parser.add_argument("--domain", help="whose key it is; the sender's domain without it")
    parser.add_argument(
        "--selector", default="", help="name of the key; without it, the unnamed one at mailkey.<domain>"
    )
    parser.add_argument(
        "--rcpt-to", action="append", default=[], metavar="ADDRESS", help="bind this recipient; once for each"
    )
    parser.add_argument("--days", type=float, default=7, help="until the signature expires; 7 without it, at most 14")
    parser.add_argument("file", nargs="?", help="message or mbox; standard input without it")


def run(args: argparse.Namespace) -> int:
    try:
        key = load_key(args.key, domain=args.domain or _domain_of(args.mail_from), selector=args.selector)
        with open_mail(args.file) as file:
            return _sign_all(file, sys.stdout.buffer, key, args)
    except BrokenPipeError:
        raise
    except (OSError, OverflowError, ValueError) as error:
        print(f"forwarder mailkey sign: {error}", file=sys.stderr)
        return 1


def _domain_of(mail_from: str) -> str:
    domain = mail_from.removesuffix(">").rpartition("@")[2]
    if not domain:
        raise MailkeyError("--domain is needed for the null sender: the name that EHLO will say")
    return domain


def _sign_all(file: BinaryIO, out: BinaryIO, key: Key, args: argparse.Namespace) -> int:
    unsigned = number = 0
    for number, stored in enumerate(stored_messages(file), 1):
        raw = stored.raw
        if raw is None:
            raise MailkeyError(f"message {number} is larger than {MAX_MESSAGE} octets; stopped before it")
        try:
            field = _field(stored, key, args)
        except MailkeyError as error:
            if not stored.before:
                raise
            print(f"forwarder mailkey sign: message {number} stays unsigned: {error}", file=sys.stderr)
            field = b""
            unsigned += 1
        out.writelines((stored.before, field, raw, stored.after))
    out.flush()
    if not number:
        raise MailkeyError("there is no message")
    return 1 if unsigned else 0


def _field(stored: Stored, key: Key, args: argparse.Namespace) -> bytes:
    return sign(
        stored.message, key=key, mail_from=args.mail_from, rcpt_to=args.rcpt_to, lifetime=timedelta(days=args.days)
    )
