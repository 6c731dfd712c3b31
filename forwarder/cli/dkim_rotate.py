"""How does the next dkim key come in?"""

from __future__ import annotations

import argparse

from forwarder.cli.keyrotation import add_rotate_arguments as add_arguments
from forwarder.cli.keyrotation import rotate

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    return rotate(args, "dkim")
