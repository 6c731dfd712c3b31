"""Tells the whole story on one machine: a signed message goes through the service, its bounce comes home.

The service in the middle is the real one, with its embedded store, configured by a file like any other. ``--once`` tells the
story, checks every claim it makes, and exits 0 or 1; without it the lab stays up for messages of your own.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="tell the story, check it, exit 0 or 1")
    parser.add_argument("--log", action="store_true", help="show the service's own events too")


def run(args: argparse.Namespace) -> int:
    from forwarder.app.running import run_loop
    from forwarder.cli.demo_story import main

    with tempfile.TemporaryDirectory(prefix="forwarder-demo-") as folder, suppress(KeyboardInterrupt):
        return run_loop(main(Path(folder), once=args.once, log=args.log))
    return 0
