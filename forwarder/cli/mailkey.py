"""Which mailkey sub-command is meant? Each is a module of its own, ``mailkey_<name>.py``, and it alone is imported."""

from __future__ import annotations

import argparse
import importlib
import importlib.util

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


class _Chosen(argparse.ArgumentParser):
    """Imports its sub-command when it is about to parse: ``--help`` of the group imports none."""

    module = ""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self.module:
            loaded, self.module = importlib.import_module(self.module), ""
            loaded.add_arguments(self)
            self.set_defaults(run_sub_command=loaded.run)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Chosen)
    for name, summary in COMMANDS.items():
        module = f"forwarder.cli.mailkey_{name}"
        if importlib.util.find_spec(module) is not None:
            command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
            command.module = module


def run(args: argparse.Namespace) -> int:
    return int(args.run_sub_command(args))
