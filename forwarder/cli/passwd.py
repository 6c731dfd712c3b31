"""Which line lets a user log in? Asks for the password, or reads it from standard input; never from the command line."""

from __future__ import annotations

import argparse
import getpass
import sys

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "login", help="as in [submission.logins]; the line goes to standard output, for the credentials file"
    )


def run(args: argparse.Namespace) -> int:
    from forwarder.credentials import make_line

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            print("the two are not the same", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        print(make_line(args.login, password))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
