"""What does an item of the queue look like in a file? One line of JSON each, whole: another machine can deliver from it.

The record, the head and the body are base64 of what the store holds, without any store's seal; ``check`` is a digest over all
that counts, so that a damaged line is noticed and none of it is taken. What stands under ``about`` is for people, and not read.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from forwarder.store.queue import Carried
from forwarder.store.queuerecords import pack_held, unpack_held
from forwarder.store.records import UNREADABLE

__all__ = ["MAX_LINE", "LineError", "build_line", "parse_line"]

#: Octets of one line: a body of the largest message that any configuration takes here, in base64, and its record.
MAX_LINE = 256 * 1024 * 1024
_FORMAT = 1


class LineError(ValueError):
    """This line cannot be taken; the text says why."""


class _Line(msgspec.Struct, frozen=True):
    format: int
    id: str
    about: dict[str, Any]
    due_at: datetime | None
    unanswered_dots: int
    dead: str | None
    died_at: datetime | None
    on_hold: bool
    given_up: bool
    record: bytes
    head: bytes
    body: bytes
    check: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def build_line(one: Carried, now: datetime) -> bytes:
    """With its end of line."""
    held = one.held
    head, body = held.delivery.data
    waits = one.dead is None and not one.on_hold
    line = _Line(
        format=_FORMAT,
        id=held.id,
        about={
            "next_hop": held.delivery.next_hop,
            "sender": str(held.envelope.sender or "<>"),
            "recipients": [str(address) for address in held.delivery.recipients],
            "queued_at": held.queued_at,
            "expires_at": held.delivery.expires_at,
        },
        due_at=now + timedelta(seconds=one.due_in) if waits else None,
        unanswered_dots=one.dots,
        dead=one.dead,
        died_at=now - timedelta(seconds=one.dead_for) if one.dead is not None else None,
        on_hold=one.on_hold,
        given_up=one.given_up,
        record=pack_held(held),
        head=head,
        body=body,
    )
    return _encode(msgspec.structs.replace(line, check=_check(line))) + b"\n"


def parse_line(text: bytes, now: datetime) -> Carried:
    """Raises LineError."""
    try:
        line = _decode(text)
    except UNREADABLE as error:
        raise LineError(f"no item of a queue: {error}") from None
    if line.format != _FORMAT:
        raise LineError(f"of format {line.format}, and this version reads {_FORMAT}")
    if line.check != _check(line):
        raise LineError("damaged: its check does not fit")
    held = unpack_held(line.record, (line.head, line.body))
    if held is None or held.id != line.id:
        raise LineError("damaged: its record cannot be read")
    return Carried(
        held,
        due_in=max(0.0, (line.due_at - now).total_seconds()) if line.due_at is not None else 0,
        dots=line.unanswered_dots,
        dead=line.dead,
        dead_for=max(0.0, (now - line.died_at).total_seconds()) if line.died_at is not None else 0,
        on_hold=line.on_hold,
        given_up=line.given_up,
    )


def _check(line: _Line) -> str:
    state = blake2b(digest_size=16)
    # Encoded once more, the body included: what an editor or a disk changed in any field that counts shows.
    state.update(_encode(msgspec.structs.replace(line, about={}, check="")))
    return state.hexdigest()
