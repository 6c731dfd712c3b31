"""Does this report get a note on how to set up a mailkey? docs/mailkey.md section 11: never where there is one, once a day."""

from __future__ import annotations

from forwarder import bounce
from forwarder.auth.mailkey.record import NoRecord, evaluate_answer
from forwarder.pipeline.doors import Doors, Settings
from forwarder.ports import StoreAway

__all__ = ["note_for"]


async def note_for(domain: str, id: str, settings: Settings, doors: Doors) -> str | None:  # noqa: A002 - the envelope's
    """The note for a report to an address in ``domain``. What cannot be found out now (a DNS fault, the store away) means
    none: a report never waits for its note."""
    if settings.note is None:
        return None
    note = bounce.compose_note(settings.note, domain, settings.note_url)
    if note is None:
        return None
    record = evaluate_answer(await doors.resolver.txt(f"mailkey.{domain}"))
    # A record that is malformed or revoked is one: its owner knows of mailkeys.
    if not isinstance(record, NoRecord) or record.temporary:
        return None
    try:
        return note if await doors.ledger.take_note(domain) else None
    except StoreAway as away:
        doors.journal.event("ledger.away", id=id, step="note", reason=str(away))
        return None
