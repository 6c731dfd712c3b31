"""Which store sub-command is meant?"""

from __future__ import annotations

import argparse

from forwarder.cli import group
from forwarder.cli.group import run

__all__ = ["COMMANDS", "add_arguments", "run"]

COMMANDS = {"acl": "print the line that lets our user do what we need on a server of yours, and nothing else"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group.add_commands(parser, "store", COMMANDS)
