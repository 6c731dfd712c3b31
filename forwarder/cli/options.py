"""Is what stands after an option right? The checks of the configuration, with their reason where argparse has none."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from forwarder.config.values import domain, nameserver, needed_selector, selector

__all__ = ["checked", "domain", "nameserver", "needed_selector", "selector"]

T = TypeVar("T")


def checked(check: Callable[[str], T]) -> Callable[[str], T]:
    """``check`` with its reason where argparse would say "invalid value"."""

    def parse(text: str) -> T:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return parse
