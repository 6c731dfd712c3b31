"""What does the original sender read when a forwarded message fails? A new report of ours, about the alias alone.

A report that came from the next hop is never passed on. What it says goes into a new one: its action and its status
code, its words scrubbed, and of the returned header only what lies below our own Received field, which is what the
sender sent. The finished report is searched once more, and if it tells the secret in any way, its freely worded parts
are left out. So no report can name what is behind the alias, whatever the next hop wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from forwarder.bounce.hide import Secrets, scrub_of
from forwarder.bounce.match import destinations, worst_status
from forwarder.mail.dsn import (
    MAX_RETURNING,
    MAX_RETURNING_WHOLE,
    Action,
    RecipientReport,
    Report,
    build_dsn,
    original_recipient,
)
from forwarder.mail.header import unfold
from forwarder.mail.received import find_own_received
from forwarder.model import Address, Deferred, Envelope, Failed, Field, Message, Reply, ReturnBounce

__all__ = ["compose_delay", "compose_failure", "compose_return", "compose_success"]

#: Fields of a returned header that are the sender's, whoever touched it since. A list of what may be shown, not of what
#: may not: receivers add fields of their own making, above and below, that name hosts and tenants.
_SHOWN = frozenset(
    {b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"in-reply-to", b"references"}
    | {b"mime-version", b"content-type", b"content-transfer-encoding", b"list-id"}
)
#: And these where they stand below our own Received field.
_SHOWN_BELOW = _SHOWN | {
    b"received",
    b"dkim-signature",
    b"mailkey-signature",
    b"user-agent",
    b"x-mailer",
    b"feedback-id",
}
#: Fields of a returned header that are shown. Sane mail has thirty.
_MAX_SHOWN = 100
_SUBJECTS = {
    Action.FAILED: "Undelivered mail returned to sender",
    Action.DELAYED: "Delayed mail",
    Action.DELIVERED: "Delivered mail",
    Action.RELAYED: "Delivered mail",
    Action.EXPANDED: "Delivered mail",
}
_OPENINGS = {
    Action.FAILED: "Your message could not be delivered to",
    Action.DELAYED: "Your message has not been delivered yet. It is still being tried for",
    Action.DELIVERED: "Your message was delivered to",
    Action.RELAYED: "Your message was passed on, to a system that sends no further notice, for",
    Action.EXPANDED: "Your message was passed on to the members of",
}
_STATUS_OF_ACTION = {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0"}
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")


# --- a report that came back ------------------------------------------------------------------------------------------


def compose_return(
    report: Report,
    returned: ReturnBounce,
    *,
    hostname: str,
    now: datetime,
    id: str,  # noqa: A002 - what the envelope calls it
    note: str | None = None,
) -> bytes:
    """The report for ``returned.sender``, whole. ``id`` names this transaction and no other; ``note`` is a text of ours
    that ends the part for people."""
    alias = returned.alias or Address("undisclosed", returned.reversible.domain)
    status = worst_status(report, returned.destination)
    # Where the destination forwards again, the report names addresses that even we did not know.
    asked = original_recipient(returned.orcpt)
    secrets = Secrets.of(
        (returned.destination, *(one for one in destinations(report) if str(one).casefold() != asked)),
        hosts=(report.reporting_mta, *(one.remote_mta for one in report.recipients)),
        known=(returned.sender, alias, returned.reversible),
        ours=hostname,
    )
    diagnostic = scrub_of(secrets, status.diagnostic, alias) or None if status.diagnostic else None
    header = _senders_part(report.returned_header, hostname, secrets)
    note = _harmless(note, secrets)

    def compose(diagnostic: str | None, header: bytes, references: str | None, *, own: bool = True) -> bytes:
        """``own``: with the sender's own ORCPT and ENVID."""
        code, orcpt = status.status or _status_of(status.action), returned.orcpt if own else None
        line = RecipientReport(alias, status.action, code, diagnostic, orcpt)
        return build_dsn(
            id=id,
            hostname=hostname,
            to=returned.sender,
            subject=_SUBJECTS[status.action],
            text=_text(hostname, [line], note),
            recipients=[line],
            returned_header=header,
            now=now,
            envelope_id=returned.envid if own else None,
            references=references,
        )

    parts = diagnostic, header, _reference(report.message_id)
    # Without what the sender said itself: it is no secret, and what comes back must not tell whether it was right.
    if secrets.told_by(compose(*parts, own=False).decode("utf-8", "replace")):
        parts = None, b"", None
    return compose(*parts)


def _senders_part(header: bytes, hostname: str, secrets: Secrets) -> bytes:
    """What the sender sent, as far as it can be told from what was added by us and after us."""
    fields = _fields(header)
    ours = find_own_received(fields, hostname)
    if ours is None:
        kept = [one for one in fields if one.name in _SHOWN]
    else:
        kept = [one for one in fields[ours + 1 :] if one.name in _SHOWN_BELOW]
    shown: list[bytes] = []
    size = 0
    for one in kept[:_MAX_SHOWN]:
        size += len(one.raw)
        if size > MAX_RETURNING:
            break
        shown.append(one.raw)
    # One search over all of it is what nearly every report needs.
    if secrets.named_in(b"".join(shown).decode("utf-8", "replace")):
        shown = [one for one in shown if not secrets.named_in(one.decode("utf-8", "replace"))]
    return b"".join(shown)


def _fields(header: bytes) -> list[Field]:
    """Split a header that went through other hands: what is no field is dropped, line ends are made CRLF."""
    found: list[tuple[bytes, list[bytes]]] = []
    for line in header.splitlines():
        if line[:1] in (b" ", b"\t") and found:
            found[-1][1].append(line)
        else:
            name, colon, _ = line.partition(b":")
            if colon and re.fullmatch(rb"[!-9;-~]+", name):
                found.append((name.lower(), [line]))
            else:
                found.append((b"", []))
    return [Field(name, b"\r\n".join((*lines, b""))) for name, lines in found if name]


# --- reports of ours --------------------------------------------------------------------------------------------------


def compose_failure(
    failed: Sequence[tuple[Address, Address, Failed]],
    envelope: Envelope,
    message: Message,
    *,
    hostname: str,
    now: datetime,
    note: str | None = None,
) -> bytes:
    """The report about recipients that failed for good: (alias, destination, what became of it), for the envelope's
    sender. It must not be the null sender (RFC 5321 section 6.1) and must have been verified (architecture, rule 3)."""
    lines = _by_alias(failed, _failed_line, envelope)
    # RFC 3461 section 4.3: the whole message where RET=FULL asks for it, and in no other kind of report. RFC 8689 section 5:
    # never of one that may only travel over TLS.
    full = (envelope.ret or "").upper() == "FULL" and not envelope.require_tls
    return _report(
        Action.FAILED, lines, [one for _, one, _ in failed], envelope, message, hostname, now, note, full=full
    )


def compose_delay(
    waiting: Sequence[tuple[Address, Address, Deferred]],
    envelope: Envelope,
    message: Message,
    *,
    retry_until: datetime,
    hostname: str,
    now: datetime,
    note: str | None = None,
) -> bytes:
    """The report about recipients that are still tried for, as ``compose_failure``."""

    def line(alias: Address, secrets: Secrets, outcome: Deferred, envelope: Envelope) -> RecipientReport:
        return replace(_delayed_line(alias, secrets, outcome, envelope), retry_until=retry_until)

    lines = _by_alias(waiting, line, envelope)
    return _report(Action.DELAYED, lines, [one for _, one, _ in waiting], envelope, message, hostname, now, note)


def compose_success(
    action: Action,
    alias: Address,
    destinations: Sequence[Address],
    envelope: Envelope,
    message: Message,
    *,
    hostname: str,
    now: datetime,
    note: str | None = None,
) -> bytes:
    """The report about an alias that was delivered (here), relayed or expanded, as ``compose_failure``."""
    line = RecipientReport(alias, action, _status_of(action), None, _orcpt(envelope, alias))
    return _report(action, [line], destinations, envelope, message, hostname, now, note)


_T = TypeVar("_T", Failed, Deferred)


def _by_alias(
    told: Sequence[tuple[Address, Address, _T]],
    line: Callable[[Address, Secrets, _T, Envelope], RecipientReport],
    envelope: Envelope,
) -> list[RecipientReport]:
    """One for each alias: how many there are behind it is nobody's business."""
    # One destination's server may name another's.
    secrets = Secrets.of([destination for _, destination, _ in told], hosts=[one.peer for _, _, one in told])
    lines: dict[Address, RecipientReport] = {}
    for alias, _, outcome in told:
        if alias not in lines:
            lines[alias] = line(alias, secrets, outcome, envelope)
    return list(lines.values())


def _report(
    action: Action,
    lines: Sequence[RecipientReport],
    destinations: Sequence[Address],
    envelope: Envelope,
    message: Message,
    hostname: str,
    now: datetime,
    note: str | None,
    *,
    full: bool = False,
) -> bytes:
    assert envelope.sender is not None
    assert lines
    field = message.first(b"message-id")
    secrets = Secrets.of(destinations, known=(envelope.sender, *(one.address for one in lines)), ours=hostname)
    return build_dsn(
        id=envelope.id,
        hostname=hostname,
        to=envelope.sender,
        subject=_SUBJECTS[action],
        text=_text(hostname, lines, _harmless(note, secrets)),
        recipients=lines,
        returned_header=message.header,
        returned_message=message.header + message.separator + message.body
        if full and message.size <= MAX_RETURNING_WHOLE
        else b"",
        now=now,
        envelope_id=envelope.envid,
        arrived_at=envelope.received_at,
        references=_reference(unfold(field.value).decode("latin-1") if field is not None else None),
    )


def _failed_line(alias: Address, secrets: Secrets, outcome: Failed, envelope: Envelope) -> RecipientReport:
    enhanced = outcome.reply.enhanced
    status = enhanced if enhanced and _ENHANCED.fullmatch(enhanced) and enhanced[0] == "5" else "5.0.0"
    text = scrub_of(secrets, outcome.reply.text, alias)
    diagnostic = str(Reply(outcome.reply.code, status, text)).strip()
    return RecipientReport(alias, Action.FAILED, status, diagnostic, _orcpt(envelope, alias))


def _delayed_line(alias: Address, secrets: Secrets, outcome: Deferred, envelope: Envelope) -> RecipientReport:
    if outcome.reply is None:
        # RFC 3463 section 3.5: X.4.1, no answer from host.
        return RecipientReport(alias, Action.DELAYED, "4.4.1", None, _orcpt(envelope, alias))
    enhanced = outcome.reply.enhanced
    status = enhanced if enhanced and _ENHANCED.fullmatch(enhanced) and enhanced[0] == "4" else "4.0.0"
    text = scrub_of(secrets, outcome.reply.text, alias)
    diagnostic = str(Reply(outcome.reply.code, status, text)).strip()
    return RecipientReport(alias, Action.DELAYED, status, diagnostic, _orcpt(envelope, alias))


def _orcpt(envelope: Envelope, alias: Address) -> str | None:
    asked = envelope.recipient(alias)
    return asked.orcpt if asked is not None else None


# --- common -----------------------------------------------------------------------------------------------------------


def _text(hostname: str, lines: Sequence[RecipientReport], note: str | None) -> str:
    """The part for people."""
    said = [f"This is the mail system at {hostname}.", ""]
    for line in lines:
        said += [f"{_OPENINGS[line.action]}", "", f"    <{line.address}>", ""]
        if line.diagnostic:
            said += ["The reason given is:", "", f"    {line.diagnostic}", ""]
    if note:
        said += [note, ""]
    return "\n".join(said)


def _harmless(note: str | None, secrets: Secrets) -> str | None:
    """A note is ours and tells nothing of the message. But its URL may lead to a host that is somebody's secret here."""
    return None if note is None or secrets.told_by(note) else note


def _status_of(action: Action) -> str:
    return _STATUS_OF_ACTION.get(action, "2.0.0")


def _reference(message_id: str | None) -> str | None:
    return message_id if message_id is not None and _MESSAGE_ID.fullmatch(message_id) else None
