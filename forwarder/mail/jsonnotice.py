"""What does Amazon SES say that reports in JSON, through SNS, and not in a report? Bounces and complaints, one object each.

https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
"""

from __future__ import annotations

import json
import re
from typing import Any

from forwarder.mail.mime import decoded, walk_parts
from forwarder.mail.report import Action, RecipientStatus, Report
from forwarder.model import Message

__all__ = ["message_id_of", "parse_json_report", "read_json_notice", "rows_in", "table_in", "text_in"]

#: Octets of text that are taken for JSON, recipients of one object, and characters of one value.
_MAX_TEXT = 64 * 1024
_MAX_RECIPIENTS = 50
_MAX_VALUE = 1000

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}\Z")


def parse_json_report(message: Message) -> Report | None:
    """The bounce in such a message; ``None`` where it is none. Never raises."""
    notice = read_json_notice(message, "Bounce")
    bounce = table_in(notice, "bounce")
    recipients = tuple(_recipient(one) for one in rows_in(bounce, "bouncedRecipients") if text_in(one, "emailAddress"))
    if not recipients:
        return None
    return Report(recipients, _typed(text_in(bounce, "reportingMTA")), message_id=message_id_of(notice))


def read_json_notice(message: Message, kind: str) -> dict[str, Any]:
    """The object in such a message if it is of this ``kind``, else an empty one. SNS puts it into another, as text. Never
    raises."""
    part = next(walk_parts(message), None)
    if part is None or part.content_type != "text/plain":
        return {}
    text = decoded(part)[:_MAX_TEXT].lstrip()
    if not text.startswith(b"{"):
        return {}
    # Lines of a thousand letters were broken on the way, with a space where the next begins.
    outer = _parse(re.sub(rb"\r?\n ?", b"", text).decode("utf-8", "replace"))
    inner = _parse(outer["Message"]) if isinstance(outer.get("Message"), str) else outer
    return inner if kind in (inner.get("notificationType"), inner.get("eventType")) else {}


def _parse(text: str) -> dict[str, Any]:
    """Text for people may follow the object."""
    try:
        found = json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _recipient(table: dict[str, Any]) -> RecipientStatus:
    status = text_in(table, "status") or ""
    action = text_in(table, "action")
    return RecipientStatus(
        Action.DELAYED if action == "delayed" else Action.FAILED,
        None,
        text_in(table, "emailAddress"),
        status if _STATUS.match(status) else None,
        _typed(text_in(table, "diagnosticCode")),
    )


def message_id_of(notice: dict[str, Any]) -> str | None:
    """That of the message itself; the one that SES calls so is its own."""
    return text_in(table_in(table_in(notice, "mail"), "commonHeaders"), "messageId")


def table_in(table: dict[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name)
    return found if isinstance(found, dict) else {}


def rows_in(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name)
    return [one for one in found[:_MAX_RECIPIENTS] if isinstance(one, dict)] if isinstance(found, list) else []


def text_in(table: dict[str, Any], name: str) -> str | None:
    found = table.get(name)
    return found[:_MAX_VALUE] or None if isinstance(found, str) else None


def _typed(text: str | None) -> str | None:
    return text.partition(";")[2].strip() or None if text is not None and ";" in text else text
