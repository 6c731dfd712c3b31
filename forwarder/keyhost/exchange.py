"""What does one key host answer to one request? The table of docs/mailkey.md section 4, over ``forwarder.https``."""

from __future__ import annotations

import re

from forwarder.https import HttpsFault, HttpsSettings
from forwarder.https.client import HttpsResponse, get
from forwarder.ports import KeyText, NoKeyText, Resolver

__all__ = ["MAX_TEXT", "ask"]

#: docs/mailkey.md section 4.
MAX_TEXT = 8192

_MAX_AGE = re.compile(r"(?:\A|,)[ \t]*max-age[ \t]*=[ \t]*\"?([0-9]{1,10})\"?[ \t]*(?=,|\Z)", re.IGNORECASE)
_NOT_STORED = re.compile(r"(?:\A|,)[ \t]*no-(?:store|cache)\b", re.IGNORECASE)


async def ask(
    resolver: Resolver, settings: HttpsSettings, domain: str, selector: str | None
) -> tuple[KeyText | NoKeyText, int | None]:
    """The text, or why there is none; and the seconds for which Cache-Control lets it be kept. Never raises."""
    # RFC 8615: the place that the host keeps for this.
    path = "/.well-known/mailkey" + (f"/{selector}" if selector else "")
    try:
        response = await get(resolver, f"mailkey.{domain}", path, settings, most=MAX_TEXT)
        _judge(response)
    except HttpsFault as fault:
        return NoKeyText(f"key host: {fault}", fault.temporary), None
    return KeyText(response.body), _lifetime(response)


def _judge(response: HttpsResponse) -> None:
    """Which answers are no text."""
    status = response.status
    if status in (404, 410):
        raise HttpsFault(f"no such key ({status})", temporary=False)
    if 300 <= status < 400:
        raise HttpsFault(f"a redirect ({status}), which is not followed", temporary=False)
    if status != 200:
        raise HttpsFault(f"status {status}", temporary=True)
    if response.content_type != "text/plain":
        raise HttpsFault("not text/plain", temporary=False)


def _lifetime(response: HttpsResponse) -> int | None:
    """RFC 9111 section 4.2: what is left of max-age. ``None``: it does not say."""
    if _NOT_STORED.search(response.cache_control):
        return 0
    found = _MAX_AGE.search(response.cache_control)
    if found is None:
        return None
    return int(found[1]) - (int(response.age) if re.fullmatch(r"[0-9]{1,10}", response.age) else 0)
