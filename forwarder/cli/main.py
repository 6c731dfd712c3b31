"""Which sub-command is meant? It alone is imported: ``forwarder --help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

from forwarder import __doc__ as about
from forwarder import __version__

__all__ = ["main"]

#: In the order in which one meets them. What has no module yet is not offered.
COMMANDS = {
    "demo": "show a message go through and its bounce come back, on this machine only",
    "init": "write a configuration, make keys, print the DNS records to publish",
    "check-config": "find every mistake in a configuration",
    "serve": "run the service",
    "explain": "tell what would happen to a message, and why",
    "authenticate": "read messages as JSON lines, write verdicts as JSON lines",
    "tls": "tell how mail to a domain would be protected, and why",
    "queue": "see and move the mail that waits here",
    "destinations": "see which destinations fail, pause, resume or disable them",
    "store": "prepare a store of yours",
    "reputation": "see who is complained of, forgive, block",
    "trace": "tell what happened to a message",
    "mailkey": "make, publish and use mailkey keys: sign and verify messages",
    "dkim": "make DKIM keys, print their records, rotate them",
    "srs": "make or read a reversible address",
    "passwd": "make a line of the credentials file for submission",
    "version": "print the version, and those of the libraries in use",
}

#: What a shell says of a program that a signal ended.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; the number is the process's exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(next((one for one in words if not one.startswith("-")), None))
    args = parser.parse_args(words)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # `forwarder ... | head`: nobody reads on. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="forwarder", description=about, epilog="forwarder COMMAND --help tells more.")
    parser.add_argument("--version", action="version", version=f"forwarder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module = f"forwarder.cli.{name.replace('-', '_')}"
        if importlib.util.find_spec(module) is None:
            continue
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            loaded = importlib.import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    return parser
