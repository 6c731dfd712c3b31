from __future__ import annotations

import asyncio
import errno
import fcntl
import mailbox
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder import mailbox as module
from forwarder.mailbox import MailboxFiles, _render
from forwarder.model import Address
from forwarder.ports import Mailboxes
from tests.fakes import FixedClock

BOB = Address("bob", "sender.example")
MESSAGE = b"From: bob@sender.example\r\nSubject: hello\r\n\r\nbody\r\n"
START = b"From bob@sender.example Mon Nov 23 12:30:00 2026\nReturn-Path: <bob@sender.example>\n"


@pytest.fixture
def boxes(tmp_path: Path) -> MailboxFiles:
    return MailboxFiles(tmp_path / "mail", FixedClock())


@contextmanager
def reader_of(path: Path) -> Iterator[None]:
    """Another program that keeps the file locked."""
    program = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX);"
        " print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield
        other.communicate(b"")


def read(tmp_path: Path, name: str = "abuse") -> bytes:
    return (tmp_path / "mail" / name).read_bytes()


async def test_a_message_is_appended_in_mbox_form(boxes: MailboxFiles, tmp_path: Path) -> None:
    door: Mailboxes = boxes
    await door.append("abuse", BOB, [MESSAGE[:10], MESSAGE[10:]])
    await door.append("abuse", BOB, [MESSAGE])
    one = START + b"From: bob@sender.example\nSubject: hello\n\nbody\n\n"
    assert read(tmp_path) == one * 2


async def test_the_null_sender_has_its_usual_name(boxes: MailboxFiles, tmp_path: Path) -> None:
    await boxes.append("postmaster", None, [MESSAGE])
    assert read(tmp_path, "postmaster").startswith(
        b"From MAILER-DAEMON Mon Nov 23 12:30:00 2026\nReturn-Path: <>\nFrom: bob"
    )


async def test_file_and_folder_are_private(boxes: MailboxFiles, tmp_path: Path) -> None:
    await boxes.append("abuse", BOB, [MESSAGE])
    assert stat.S_IMODE((tmp_path / "mail").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "mail" / "abuse").stat().st_mode) == 0o600


async def test_other_programs_read_the_messages(boxes: MailboxFiles, tmp_path: Path) -> None:
    for number in range(3):
        await boxes.append("abuse", BOB, [b"Subject: %d\r\n\r\nFrom me to you\r\n\r\nFrom the end" % number])
    with closing(mailbox.mbox(tmp_path / "mail" / "abuse", create=False)) as box:
        found = [(one["subject"], one.get_payload()) for one in box]
    assert found == [(f"{number}", ">From me to you\n\n>From the end\n") for number in range(3)]


@given(st.lists(st.sampled_from([b"From ", b">", b"From", b"\r\n", b"x", b">From x", b"\xff", b"\n"]), max_size=30))
def test_taking_one_quote_away_gives_back_what_came(parts: list[bytes]) -> None:
    came = b"Subject: x\r\n\r\n" + b"".join(parts)
    start, _, rest = _render(BOB, "now", [came]).partition(b"\nReturn-Path: <bob@sender.example>\n")
    assert start == b"From bob@sender.example now"
    assert not re.search(rb"^From ", rest, re.MULTILINE)
    back = re.sub(rb"^>(>*From )", rb"\1", rest, flags=re.MULTILINE)
    wanted = came.replace(b"\r\n", b"\n")
    assert back == wanted + (b"\n" if wanted.endswith(b"\n") else b"\n\n")


@pytest.mark.parametrize("local", ['"a b"', '"a\x0bb"', "x\nFrom evil", "\ud800"])
def test_no_sender_breaks_the_from_line(local: str) -> None:
    lines = _render(Address(local, "sender.example"), "Mon Nov 23 12:30:00 2026", [b"a: b\r\n\r\n"]).split(b"\n")
    assert re.fullmatch(rb"From [^ ]+@sender.example Mon Nov 23 12:30:00 2026", lines[0])
    assert re.fullmatch(rb"Return-Path: <[^ ]+@sender.example>", lines[1])
    assert lines[2:] == [b"a: b", b"", b"", b""]


def test_a_hostile_megabyte_is_quoted_in_no_time() -> None:
    for hostile in (b">" * (1 << 20), b">\n" * (1 << 19), b">From " * (1 << 18)):
        assert _render(None, "now", [hostile]).count(b"\n") >= 3


@pytest.mark.parametrize("end", [b"no line end", b"one line end\n", b"x"])
async def test_an_unfinished_end_is_closed_before_the_next_message(
    boxes: MailboxFiles, tmp_path: Path, end: bytes
) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "abuse").write_bytes(b"From x y\n\n" + end)
    await boxes.append("abuse", BOB, [MESSAGE])
    assert b"\n\nFrom bob@" in read(tmp_path)
    assert b"\n\n\n" not in read(tmp_path)


async def test_a_full_mailbox_is_an_error_that_says_so(tmp_path: Path) -> None:
    boxes = MailboxFiles(tmp_path / "mail", FixedClock(), limit=300)
    await boxes.append("abuse", BOB, [MESSAGE])
    await boxes.append("abuse", BOB, [MESSAGE])
    before = read(tmp_path)
    with pytest.raises(OSError, match=r"mailbox is full: \d+ of 300 octets") as caught:
        await boxes.append("abuse", BOB, [MESSAGE])
    assert caught.value.errno == errno.EFBIG
    assert read(tmp_path) == before
    await boxes.append("postmaster", BOB, [MESSAGE])


async def test_half_a_message_is_taken_back_when_the_disk_is_full(
    boxes: MailboxFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await boxes.append("abuse", BOB, [MESSAGE])
    before = read(tmp_path)
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        await boxes.append("abuse", BOB, [MESSAGE])
    assert read(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", "A", "a b", "a\n", "x" * 65, ".hidden"])
async def test_a_name_that_leads_elsewhere_is_refused(boxes: MailboxFiles, tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match="not a mailbox name"):
        await boxes.append(name, BOB, [MESSAGE])
    assert not (tmp_path / "mail").exists()


async def test_a_symbolic_link_is_not_followed(boxes: MailboxFiles, tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "abuse").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="abuse"):
        await boxes.append("abuse", BOB, [MESSAGE])
    assert not (tmp_path / "elsewhere").exists()


async def test_many_at_once_do_not_get_mixed_up(boxes: MailboxFiles, tmp_path: Path) -> None:
    bodies = [b"Subject: x\r\n\r\n" + b"%d\r\n" % number * 2000 for number in range(20)]
    await asyncio.gather(*(boxes.append("abuse", BOB, [body]) for body in bodies))
    with closing(mailbox.mbox(tmp_path / "mail" / "abuse", create=False)) as box:
        found = [str(one.get_payload()).split() for one in box]
    assert sorted(lines[0] for lines in found) == sorted(str(number) for number in range(20))
    assert all(len(lines) == 2000 and len(set(lines)) == 1 for lines in found)


async def test_a_mailbox_that_a_reader_keeps_locked_is_an_error(
    boxes: MailboxFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_LIMIT", 0.0)
    await boxes.append("abuse", BOB, [MESSAGE])
    with reader_of(tmp_path / "mail" / "abuse"), pytest.raises(OSError, match="locked by another program"):
        await boxes.append("abuse", BOB, [MESSAGE])
    await boxes.append("abuse", BOB, [MESSAGE])


async def test_the_lock_is_given_back(boxes: MailboxFiles, tmp_path: Path) -> None:
    await boxes.append("abuse", BOB, [MESSAGE])
    with (tmp_path / "mail" / "abuse").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
