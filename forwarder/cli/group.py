"""How does a command have commands of its own? Each is a module ``forwarder.cli.<group>_<name>``, and it alone is imported."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Mapping

__all__ = ["add_commands", "run"]


class _Chosen(argparse.ArgumentParser):
    """Imports its sub-command when it is about to parse: ``--help`` of the group imports none."""

    module = ""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self.module:
            loaded, self.module = importlib.import_module(self.module), ""
            loaded.add_arguments(self)
            self.set_defaults(run_sub_command=loaded.run)
        return super().parse_known_args(args, namespace)


def add_commands(parser: argparse.ArgumentParser, group: str, summaries: Mapping[str, str]) -> None:
    """``summaries`` by name, in the order in which one meets them. What has no module yet is not offered."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Chosen)
    for name, summary in summaries.items():
        module = f"forwarder.cli.{group}_{name}"
        if importlib.util.find_spec(module) is not None:
            command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
            command.module = module


def run(args: argparse.Namespace) -> int:
    """The sub-command that was chosen."""
    return int(args.run_sub_command(args))
