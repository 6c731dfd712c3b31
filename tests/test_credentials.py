"""Lines of the credentials file: made, read, compared."""

from __future__ import annotations

import io
import sys
import time

import pytest

from forwarder.cli.main import main
from forwarder.credentials import Credentials, CredentialsError, make_line

LINE = make_line("alice", "caf\u00e9")


def test_a_password_is_right_in_every_spelling_of_its_letters_and_wrong_otherwise() -> None:
    read = Credentials.parse(f"# ours\n\n{LINE}\n".encode())
    assert read.check("alice", "cafe\u0301")
    assert not read.check("alice", "cafe")
    assert not read.check("alice", "")
    assert not read.check("nobody", "caf\u00e9")


def test_no_two_lines_are_alike_and_none_holds_the_password() -> None:
    assert make_line("alice", "secret") != make_line("alice", "secret")
    assert "secret" not in make_line("alice", "secret")


@pytest.mark.parametrize(
    "content",
    [
        b"alice\n",
        b"alice:secret\n",
        b"alice:$scrypt$ln=1,r=8,p=1$AAAA$AAAA\n",
        LINE[:-4].encode(),
        b":" + LINE.partition(":")[2].encode(),
        f"{LINE}\n{LINE}\n".encode(),
        b"\xff\xfe",
    ],
    ids=["no hash", "clear text", "other cost", "cut off", "no login", "twice", "no text"],
)
def test_what_is_no_line_is_named_by_its_number_and_not_repeated(content: bytes) -> None:
    with pytest.raises(CredentialsError, match=r"line [12]") as caught:
        Credentials.parse(content)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("login", "password"), [("a:b", "x"), ("", "x"), ("a", ""), ("a", "x" * 256), ("a", "x\0y")])
def test_what_can_be_no_login_or_password_is_refused(login: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"^a (login|password) "):
        make_line(login, password)


def test_the_command_reads_the_password_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass word\n"))
    assert main(["passwd", "alice"]) == 0
    assert Credentials.parse(capsys.readouterr().out.encode()).check("alice", "pass word")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["passwd", "alice"]) == 1


def test_an_unknown_login_costs_as_much_as_a_wrong_password() -> None:
    read = Credentials.parse(LINE.encode())

    def cost(login: str) -> float:
        """Of this process's processor, so that a busy machine does not count."""
        begun = time.process_time()
        assert not read.check(login, "wrong")
        return time.process_time() - begun

    known, unknown = (min(cost(login) for _ in range(3)) for login in ("alice", "nobody"))
    assert unknown == pytest.approx(known, rel=0.5)
    assert unknown > 0.02
