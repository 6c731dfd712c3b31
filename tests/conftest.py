"""What every test lives with: how hypothesis searches, and settings that are the test's own."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from forwarder.values import find_members_at_once, freeze_values

# Before a module of the program is imported that declares some.
freeze_values()
# As in service.
find_members_at_once()

# No deadline: the machine may be busy, and pytest's own time limit ends what hangs. In CI the examples are always the same.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

#: Where the suites of others lie (tests/suites.py): no setting of the program.
_OF_THE_TESTS = {"FORWARDER_SUITES", "FORWARDER_BADINPUTS", "FORWARDER_VENV", "FORWARDER_PYTHON"}


@pytest.fixture(autouse=True)
def no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FORWARDER_... that the person at the keyboard has set must not decide whether a test passes."""
    for name in os.environ:
        if name.startswith("FORWARDER_") and name not in _OF_THE_TESTS:
            monkeypatch.delenv(name)
