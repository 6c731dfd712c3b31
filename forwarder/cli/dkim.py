"""Which DKIM sub-command is meant?"""

from __future__ import annotations

import argparse

from forwarder.cli import group
from forwarder.cli.group import run

__all__ = ["COMMANDS", "add_arguments", "run"]

COMMANDS = {
    "keygen": "make a key",
    "record": "print the DNS record of a key",
    "status": "compare what the DNS serves with the keys in use",
    "rotate": "stage a new key, to be used once the DNS shows it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group.add_commands(parser, "dkim", COMMANDS)
