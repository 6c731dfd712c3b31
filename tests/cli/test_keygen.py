"""forwarder mailkey/dkim keygen and record: a key file and its TXT record."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from forwarder.auth.keyrecord import KeyRecord, parse_key_record
from forwarder.auth.mailkey.record import MailkeyRecord, parse_mailkey_record
from forwarder.cli.main import main


def text_of(line: str) -> bytes:
    """The joined character-strings of a zone-file line."""
    return "".join(line.split('"')[1::2]).encode()


@pytest.mark.parametrize("rsa", [False, True])
def test_a_mailkey_is_made_and_its_record_parses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rsa: bool
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["mailkey", "keygen", "--domain", "A.example", "--selector", "k1", *(["--rsa"] if rsa else [])]) == 0
    file = tmp_path / "mailkey-a.example-k1.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    capsys.readouterr()
    command = ["mailkey", "record", "--key", str(file), "--domain", "a.example", "--selector", "k1", "--policy", "some"]
    assert main(command) == 0

    line = capsys.readouterr().out
    assert line.startswith("k1.mailkey.a.example. ")
    assert all(len(one) <= 255 for one in line.split('"')[1::2])
    record = parse_mailkey_record(text_of(line))
    assert isinstance(record, MailkeyRecord)
    assert (record.policy, record.kind, record.problem) == ("some", "rsa" if rsa else "ed25519", None)


@pytest.mark.parametrize("ed25519", [False, True])
def test_a_dkim_key_is_made_and_its_record_parses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ed25519: bool
) -> None:
    common = ["--domain", "a.example", "--selector", "s1"]
    file = tmp_path / "k.pem"
    assert main(["dkim", "keygen", *common, "--out", str(file), *(["--ed25519"] if ed25519 else [])]) == 0
    capsys.readouterr()
    assert main(["dkim", "record", *common, "--key", str(file)]) == 0

    line = capsys.readouterr().out
    assert line.startswith("s1._domainkey.a.example. ")
    record = parse_key_record(text_of(line))
    assert isinstance(record, KeyRecord)
    assert record.kind == ("ed25519" if ed25519 else "rsa")


def test_a_key_is_never_written_over_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["mailkey", "keygen", "--domain", "a.example", "--out", str(tmp_path / "k.pem")]
    assert main(command) == 0
    before = (tmp_path / "k.pem").read_bytes()

    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "k.pem").read_bytes() == before
