"""forwarder srs encode, decode, secrets: what an operator does with reversible addresses and their secrets."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from forwarder.app import SystemClock
from forwarder.cli.main import main
from forwarder.keys import generate_secret, load_secrets
from forwarder.model import Address
from forwarder.srs import encode_reply


@pytest.fixture
def config(tmp_path: Path) -> Path:
    generate_secret(tmp_path / "srs.secret")
    file = tmp_path / "forwarder.toml"
    file.write_text('hostname = "mx.fwd.test"\n[srs]\ndomain = "fwd.test"\nsecret_file = "srs.secret"\n')
    return file


def test_an_address_goes_there_and_back_across_a_new_secret(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srs", "encode", "bob@sender.test", "--config", str(config)]) == 0
    address = capsys.readouterr().out.strip()
    assert address.startswith("SRS0=")
    assert main(["srs", "secrets", "rotate", "--config", str(config)]) == 0
    capsys.readouterr()

    assert main(["srs", "decode", address, "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == ["bob@sender.test", "made with secret 2 of 2"]
    assert main(["srs", "decode", address.replace("=bob@", "=eve@"), "--config", str(config)]) == 1
    assert capsys.readouterr().out == "bad MAC\n"


def test_an_address_of_a_rewritten_from_is_read_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secrets, today = load_secrets(config.parent / "srs.secret"), SystemClock().now().date()
    address = str(encode_reply(Address("bob", "author.test"), "fwd.test", secrets, today).address)
    assert main(["srs", "decode", address, "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == ["bob@author.test", "made with secret 1 of 1"]
    assert main(["srs", "decode", address.replace("=bob@", "=eve@"), "--config", str(config)]) == 1
    assert capsys.readouterr().out == "bad MAC\n"


def test_secrets_are_told_by_age_and_never_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config.parent / "srs.secret"
    assert main(["srs", "secrets", "rotate", "--config", str(config)]) == 0
    capsys.readouterr()
    today = SystemClock().now().date()

    assert main(["srs", "secrets", "status", "--config", str(config)]) == 0

    told = capsys.readouterr().out
    assert told.splitlines()[0] == f"secret 1: since {today}, mints; no report seen"
    assert f"may go on {today + timedelta(days=22)}" in told.splitlines()[1]
    assert all(one.decode() not in told for one in load_secrets(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in config.parent.iterdir() if one.name.startswith(".")] == []
