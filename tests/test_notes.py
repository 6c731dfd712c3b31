"""The note in bounces: its text, and whether there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from forwarder.bounce.note import DEFAULT, MAX_NOTE, check_template, compose_note
from forwarder.pipeline.doors import Doors, Settings
from forwarder.pipeline.notes import note_for
from forwarder.ports import StoreAway
from forwarder.route import Policy
from forwarder.seal import Names
from tests.fakes import FakeResolver, FixedClock, MemoryJournal


@dataclass
class Notes:
    """A ledger of notes."""

    away: bool = False
    taken: list[str] = field(default_factory=list)

    async def take_note(self, domain: str) -> bool:
        if self.away:
            raise StoreAway("test")
        self.taken.append(domain)
        return self.taken.count(domain) == 1


async def noted(
    records: list[str] | str | None, ledger: Notes, domain: str = "sender.test", template: str | None = DEFAULT
) -> str | None:
    zone = {} if records is None else {"mailkey.sender.test": {"TXT": records}}
    outside: Any = None
    doors = Doors(
        directory=outside,
        resolver=FakeResolver(zone),
        ledger=ledger,  # type: ignore[arg-type]
        mailboxes=outside,
        keys=outside,
        clock=FixedClock(),
        journal=MemoryJournal(),
    )
    settings = Settings(Names("mx.fwd.test", "mx.fwd.test"), Policy(), note=template, note_url="https://mk.test/")
    return await note_for(domain, "id", settings, doors)


async def test_a_domain_without_a_record_gets_it_once() -> None:
    ledger = Notes()
    first = await noted(None, ledger)
    assert first is not None
    assert "mailkey.sender.test. IN TXT" in first
    assert await noted(None, ledger) is None


@pytest.mark.parametrize(
    "records",
    [
        ["v=mailkey1; p="],
        ["v=mailkey1; nonsense"],
        ["v=mailkey1; u=https; o=all"],
        ["v=mailkey1; p=", "v=mailkey1; p=AA=="],
        "SERVFAIL",
        "TIMEOUT",
    ],
    ids=["revoked", "malformed", "https", "several", "servfail", "timeout"],
)
async def test_who_knows_of_mailkeys_and_who_cannot_be_asked_gets_none(records: list[str] | str) -> None:
    ledger = Notes()
    assert await noted(records, ledger) is None
    assert ledger.taken == [], "the day's note is not used up"


async def test_another_txt_record_is_no_mailkey() -> None:
    assert await noted(["v=spf1 -all"], Notes()) is not None


async def test_no_store_no_note() -> None:
    assert await noted(None, Notes(away=True)) is None


async def test_switched_off_nobody_is_asked() -> None:
    ledger = Notes()
    assert await noted(None, ledger, template=None) is None
    assert ledger.taken == []


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".",
        "localhost",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        "a b.test",
        "x;rm.test",
        "$(id).test",
        'quote".test',
        "new\nline.test",
        "a..test",
        "-rf.test",
        "a" * 64 + ".test",
        ".".join(["a" * 60] * 4) + ".testtest",
        "{url}.test",
    ],
)
def test_what_is_no_host_name_gets_no_note(domain: str) -> None:
    assert compose_note(DEFAULT, domain, "https://mk.test/") is None


def test_a_domain_is_written_in_a_labels() -> None:
    note = compose_note(DEFAULT, "Bücher.Example", "https://mk.test/")
    assert note is not None
    assert "mailkey.xn--bcher-kva.example. IN TXT" in note
    assert note.isascii()


def test_every_line_of_the_note_fits_whatever_the_domain() -> None:
    check_template(DEFAULT)
    longest = ".".join(["d" * 60] * 4)
    note = compose_note(DEFAULT, longest, "u" * 200)
    assert note is not None
    assert max(map(len, note.splitlines())) <= 998
    short = compose_note(DEFAULT, "sender.example", "https://fwd.example/mailkey")
    assert short is not None
    assert max(map(len, short.splitlines())) <= 100
    assert len(short.splitlines()) <= 20


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{domain} ü", "ASCII"),
        ("{domain}" + "x" * MAX_NOTE, "longer than 2048 characters"),
        ("{domain}" * 10, "line 1 may grow"),
        ("{domain}\n\x1b[2J", "line 2 holds a control character"),
        ("no mark", "must hold {domain}"),
    ],
)
def test_a_text_that_cannot_be_a_note_is_refused_with_its_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_template(text)
