"""What does a delivery report say, in whatever format it came? The vocabulary of RFC 3464."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from forwarder.mail.reasons import Reason
from forwarder.model import Message

__all__ = [
    "Action",
    "Reason",
    "RecipientStatus",
    "Report",
    "header_of",
    "message_id_in",
    "message_id_of",
    "parse_message_id",
]

#: Octets of a returned header that are kept: as many as we accept ourselves.
MAX_RETURNED = 256 * 1024
#: RFC 5322 section 2.1.1: no line, and so no sane Message-ID, is longer.
_MAX_MESSAGE_ID = 998

_MESSAGE_ID_FIELD = re.compile(rb"^message-id:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)


class Action(StrEnum):
    """RFC 3464 section 2.3.3"""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """What a report says of one recipient. Addresses are text without their type: they may be no addresses at all.
    ``status`` is a well-formed RFC 3463 code or ``None``. ``reason`` and ``hard`` are what ``forwarder.mail.reasons`` makes
    of it: hard is a failure whose address or domain is gone; others may be final too, as ``action`` and ``status`` tell."""

    action: Action
    original_recipient: str | None = None
    final_recipient: str | None = None
    status: str | None = None
    diagnostic: str | None = None
    remote_mta: str | None = None
    reason: Reason = Reason.OTHER
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A delivery report. ``returned_header`` is the header of the message it is about, ``b""`` where none came back;
    ``message_id`` is the Message-ID in it."""

    recipients: tuple[RecipientStatus, ...]
    reporting_mta: str | None = None
    original_envelope_id: str | None = None
    returned_header: bytes = b""
    message_id: str | None = None


def header_of(returned: bytes) -> bytes:
    """The header at the start of a returned message, its last line complete."""
    returned = returned.lstrip(b"\r\n")
    end = re.search(rb"\r?\n\r?\n", returned)
    header = returned[: end.start()] if end else returned.rstrip(b"\r\n")
    return header[:MAX_RETURNED] + b"\r\n" if header else b""


def message_id_in(header: bytes) -> str | None:
    """The Message-ID of a returned header."""
    field = _MESSAGE_ID_FIELD.search(header)
    return parse_message_id(field[1]) if field else None


def parse_message_id(value: bytes) -> str | None:
    """A Message-ID as it is compared: without white space, as every system on the way folds in its own places."""
    return b"".join(value.split()).decode("latin-1")[:_MAX_MESSAGE_ID] or None


def message_id_of(message: Message) -> str | None:
    """The Message-ID of a message, as it is compared."""
    found = message.first(b"message-id")
    return parse_message_id(found.value) if found is not None else None
