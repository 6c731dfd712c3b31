"""Where are the conformance suites that others wrote? They lie beside a checkout and are never part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUITES = Path(os.environ.get("FORWARDER_SUITES", ROOT.parent / "shared" / "suites"))
BADINPUTS = Path(os.environ.get("FORWARDER_BADINPUTS", ROOT.parent / "shared" / "badinputs"))


def suite(name: str) -> Path:
    """The folder of this suite; skips the test, saying so, where it is absent."""
    folder = SUITES / "developers" / name
    if not folder.is_dir():
        pytest.skip(
            f"conformance suite {name!r} is not here: set FORWARDER_SUITES to the folder that holds developers/{name}"
        )
    return folder


def badinputs() -> Path:
    """The folder of hostile dialogues and messages; skips the test, saying so, where it is absent."""
    if not BADINPUTS.is_dir():
        pytest.skip("the hostile inputs are not here: set FORWARDER_BADINPUTS to their folder")
    return BADINPUTS
