"""forwarder mailkey sign and verify: files, standard input and mboxes, and what the exit code says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from forwarder.cli import mailfile
from forwarder.cli.mailfile import stored_messages
from forwarder.keys import generate_ed25519, mailkey_record
from forwarder.mailkey import load_key, verify
from tests.suites import ROOT

BOB, ANN = "bob@sender.example", "ann@elsewhere.example"
MESSAGE = b"From: Bob <bob@sender.example>\nTo: ann@elsewhere.example\nSubject: x\n\nHello.\n"
MBOX = (
    b"From bob@sender.example Fri Nov 27 12:00:00 2026\n" + MESSAGE + b"\n"
    b"From bob@sender.example Fri Nov 27 12:01:00 2026\n"
    b"From: Bob <bob@sender.example>\nSubject: y\n\n>From here on\n>>From there\nFrom within a paragraph\n\n"
)


def mailkey(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "forwarder", "mailkey", *arguments],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


@pytest.fixture
def key(tmp_path: Path) -> str:
    generate_ed25519(tmp_path / "key.pem")
    return str(tmp_path / "key.pem")


@pytest.fixture
def records(tmp_path: Path, key: str) -> str:
    text = mailkey_record(load_key(key, domain="sender.example"))
    (tmp_path / "record.txt").write_text(
        f'; published\nmailkey.sender.example. 300 IN TXT "{text[:20]}" "{text[20:]}" ; x\n'
    )
    return str(tmp_path / "record.txt")


@pytest.mark.parametrize("message", [MESSAGE, MESSAGE.replace(b"\n", b"\r\n")])
def test_sign_puts_the_field_on_top_and_leaves_every_octet_else(key: str, records: str, message: bytes) -> None:
    signed = mailkey("sign", "--key", key, "--mail-from", BOB, "--rcpt-to", ANN, stdin=message)

    assert signed.returncode == 0
    assert signed.stdout.startswith(b"Mailkey-Signature: v=1;")
    assert signed.stdout.endswith(message)
    assert signed.stdout.count(b"\r\n") in (0, signed.stdout.count(b"\n"))
    checked = mailkey(
        "verify", "--records", records, "--mail-from", BOB, "--rcpt-to", ANN, "--json", stdin=signed.stdout
    )
    assert checked.returncode == 0
    assert json.loads(checked.stdout) == {
        "message": 1,
        "mail_from": BOB,
        "result": "pass",
        "domain": "sender.example",
        "signer": "sender.example",
        "selector": None,
        "policy": "all",
        "bound": True,
        "reason": None,
    }


def test_each_message_of_an_mbox_is_signed_and_checked_by_itself(tmp_path: Path, key: str, records: str) -> None:
    (tmp_path / "mbox").write_bytes(MBOX)

    signed = mailkey("sign", "--key", key, "--mail-from", BOB, str(tmp_path / "mbox"))

    assert signed.returncode == 0
    assert signed.stdout.count(b"Mailkey-Signature:") == 2
    kept = [line for line in signed.stdout.splitlines(True) if not line.startswith((b"Mailkey-Signature:", b" "))]
    assert b"".join(kept) == MBOX
    broken = signed.stdout.replace(b"Hello.", b"Bye.")
    checked = mailkey("verify", "--records", records, "--mail-from", BOB, stdin=broken)
    assert checked.returncode == 1
    assert [line.split()[:2] for line in checked.stdout.splitlines()] == [[b"1", b"fail"], [b"2", b"pass"]]
    assert b"body hash does not match" in checked.stdout


def test_the_quoting_of_an_mbox_is_not_part_of_the_message(key: str) -> None:
    first, second = stored_messages(io.BytesIO(mailkey("sign", "--key", key, "--mail-from", BOB, stdin=MBOX).stdout))

    assert first.message.endswith(b"\n\nHello.\n")
    assert second.message.endswith(b"\nFrom here on\n>From there\nFrom within a paragraph\n")
    dns = {"mailkey.sender.example": [mailkey_record(load_key(key, domain="sender.example"))]}
    assert verify(second.message, mail_from=BOB, dns=dns).result == "pass"


def test_the_sender_is_taken_from_return_path_where_it_is_not_told(key: str, records: str) -> None:
    signed = mailkey("sign", "--key", key, "--mail-from", BOB, stdin=MESSAGE).stdout

    delivered = mailkey("verify", "--records", records, stdin=b"Return-Path: <bob@sender.example>\n" + signed)
    unknown = mailkey("verify", "--records", records, stdin=signed)

    assert (delivered.returncode, delivered.stdout.split()[1]) == (0, b"pass")
    assert unknown.returncode == 1
    assert b"give --mail-from" in unknown.stdout


def test_an_old_message_is_checked_as_of_its_day(key: str, records: str) -> None:
    signed = mailkey("sign", "--key", key, "--mail-from", BOB, stdin=MESSAGE).stdout

    checked = mailkey("verify", "--records", records, "--mail-from", BOB, "--time", "4000000000", stdin=signed)

    assert checked.returncode == 1
    assert b"mailkey signature expired" in checked.stdout


def test_a_dns_that_does_not_answer_has_its_own_exit_code(key: str) -> None:
    # Nothing listens at port 1 of loopback.
    checked = mailkey("verify", "--nameserver", "127.0.0.1:1", "--mail-from", BOB, stdin=MESSAGE)

    assert checked.returncode == 3
    assert checked.stdout.split()[1] == b"temperror"


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["--mail-from", "bob@other.example", "--domain", "sender.example"], MESSAGE, b"cannot sign for a sender in"),
        (["--mail-from", ""], MESSAGE, b"--domain is needed for the null sender"),
        (["--mail-from", BOB, "--days", "15"], MESSAGE, b"14 days"),
        (["--mail-from", BOB, "--days", "1e300"], MESSAGE, b"forwarder mailkey sign: "),
        (["--mail-from", BOB, "--days", "nan"], MESSAGE, b"forwarder mailkey sign: "),
        (["--mail-from", BOB], b"Subject: no author\n\n", b"one From field"),
        (["--mail-from", BOB], b"", b"there is no message"),
        (["--mail-from", BOB, "missing.eml"], b"", b"missing.eml"),
    ],
)
def test_what_is_not_signed_is_not_written(key: str, arguments: list[str], stdin: bytes, told: bytes) -> None:
    done = mailkey("sign", "--key", key, *arguments, stdin=stdin)

    assert (done.returncode, done.stdout) == (1, b"")
    assert told in done.stderr


def test_in_an_mbox_what_cannot_be_signed_is_copied_and_told(key: str) -> None:
    mbox = MBOX.replace(b"From: Bob", b"Sender: Bob", 1)

    done = mailkey("sign", "--key", key, "--mail-from", BOB, stdin=mbox)

    assert done.returncode == 1
    assert done.stdout.count(b"Mailkey-Signature:") == 1
    assert b"message 1 stays unsigned" in done.stderr


def test_a_message_that_is_too_large_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailfile, "MAX_MESSAGE", 200)
    large = b"From a\nSubject: x\n\n" + b"x" * 70_000 + b"\n\n"

    found = list(stored_messages(io.BytesIO(large + MBOX)))

    assert [one.raw is None for one in found] == [True, False, False]
    [alone] = stored_messages(io.BytesIO(b"Subject: x\n\n" + b"x" * 70_000))
    assert alone.raw is None


def test_a_file_without_records_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")

    done = mailkey("verify", "--records", str(tmp_path / "empty"), "--mail-from", BOB, stdin=MESSAGE)

    assert done.returncode == 2
    assert b"no TXT record in zone-file form" in done.stderr
