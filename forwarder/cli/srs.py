"""Which srs sub-command is meant?"""

from __future__ import annotations

import argparse

from forwarder.cli import group
from forwarder.cli.group import run

__all__ = ["COMMANDS", "add_arguments", "run"]

COMMANDS = {
    "encode": "make the reversible address of a sender",
    "decode": "read a reversible address, and tell which secret made it",
    "secrets": "see the secrets by their age, or put a new one on top",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group.add_commands(parser, "srs", COMMANDS)
