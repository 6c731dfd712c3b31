"""What does the server's ACL file need, so that our user can do its work and nothing else?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from forwarder.app import StartError, store_url
from forwarder.config import ConfigError, load
from forwarder.store.acl import USER, acl_line

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("forwarder.toml"))


def run(args: argparse.Namespace) -> int:
    try:
        url = urlsplit(store_url(load(args.config)))
    except (ConfigError, StartError, ValueError) as error:
        print(f"forwarder store acl: {error}", file=sys.stderr)
        return 1
    if not url.password:
        print(
            "forwarder store acl: no password: name its file with store_password_file, and the user in the URL,"
            f' like store = "rediss://{USER}@store.example.org:6379"',
            file=sys.stderr,
        )
        return 1
    print(acl_line(unquote(url.username or "default"), unquote(url.password).encode()))
    return 0
