"""Does the DNS show the mailkey keys in use?"""

from __future__ import annotations

import argparse

from forwarder.cli.keyrotation import add_status_arguments as add_arguments
from forwarder.cli.keyrotation import status

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    return status(args, "mailkey")
