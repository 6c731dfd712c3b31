"""Every target there is."""

from __future__ import annotations

from tests.fuzz.auth import SPF, TAGS
from tests.fuzz.dns import ANSWERS, POLICIES, ZONES
from tests.fuzz.filters import MILTER, RSPAMD
from tests.fuzz.kept import CONFIG, LINES, RECORDS, REVERSIBLE, TEXTS, close_settings
from tests.fuzz.message import MESSAGES, REPORTS, RESULTS, SAID, close_messages
from tests.fuzz.smtp import COMMANDS, DIALOGUES, REPLIES, close_dialogues
from tests.fuzz.tls import CHAINS, INTRODUCTIONS

__all__ = ["TARGETS", "close_targets"]

TARGETS = (
    COMMANDS,
    DIALOGUES,
    REPLIES,
    MESSAGES,
    REPORTS,
    RESULTS,
    SAID,
    TAGS,
    SPF,
    ANSWERS,
    POLICIES,
    ZONES,
    RECORDS,
    LINES,
    TEXTS,
    CONFIG,
    REVERSIBLE,
    CHAINS,
    INTRODUCTIONS,
    MILTER,
    RSPAMD,
)


def close_targets() -> None:
    """End what they have started."""
    close_dialogues()
    close_messages()
    close_settings()
