"""Which mailkey sub-command is meant? Each is a module of its own, ``mailkey_<name>.py``, and it alone is imported."""

from __future__ import annotations

import argparse

from forwarder.cli import group
from forwarder.cli.group import run

__all__ = ["COMMANDS", "add_arguments", "run"]

#: In the order in which a sender meets them. What has no module yet is not offered.
COMMANDS = {
    "keygen": "make a key",
    "record": "print the DNS record of a key",
    "sign": "sign a message, or each message of an mbox",
    "verify": "check the mailkey signature of a message, or of each message of an mbox",
    "status": "compare what the DNS serves with the keys in use",
    "rotate": "stage a new key, to be used once the DNS shows it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group.add_commands(parser, "mailkey", COMMANDS)
