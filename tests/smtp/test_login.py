"""forwarder/smtp/login.py, and AUTH in forwarder/smtp/client.py."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest

from forwarder.model import Reply
from forwarder.smtp.client import Broken, LoggedIn, LoginRefused, Phase, Ready, SmtpClient
from forwarder.smtp.login import Login, choose_mechanism, open_exchange

LOGIN = Login("us@relay.test", "pässword")
PLAIN = b64encode("\0us@relay.test\0pässword".encode())


def offered(mechanisms: bytes) -> SmtpClient:
    client = SmtpClient("us.test")
    client.receive_data(b"220 hi\r\n")
    client.take_output()
    (event,) = client.receive_data(b"250-x\r\n250 AUTH " + mechanisms + b"\r\n")
    assert isinstance(event, Ready)
    return client


@pytest.mark.parametrize(
    ("mechanisms", "chosen"),
    [
        ({"LOGIN", "PLAIN", "CRAM-MD5"}, "PLAIN"),
        ({"LOGIN", "XOAUTH2"}, "LOGIN"),
        ({"CRAM-MD5"}, None),
        (set(), None),
    ],
)
def test_the_better_mechanism_is_chosen(mechanisms: set[str], chosen: str | None) -> None:
    assert choose_mechanism(mechanisms) == chosen


def test_plain_goes_in_one_line() -> None:
    client = offered(b"LOGIN PLAIN")
    client.log_in(LOGIN)
    assert client.take_output() == b"AUTH PLAIN " + PLAIN + b"\r\n"
    assert client.receive_data(b"235 2.7.0 welcome\r\n") == [LoggedIn()]
    assert client.phase is Phase.IDLE


def test_login_answers_two_challenges() -> None:
    client = offered(b"LOGIN")
    client.log_in(LOGIN)
    said = [client.take_output()]
    for reply in (b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n"):
        assert client.receive_data(reply) == []
        said.append(client.take_output())
    assert said[0] == b"AUTH LOGIN\r\n"
    assert [b64decode(one).decode() for one in said[1:]] == ["us@relay.test", "pässword"]
    assert client.receive_data(b"235 ok\r\n") == [LoggedIn()]


def test_a_long_password_goes_behind_the_command() -> None:
    """RFC 4954 section 4: the command with its initial response has 512 octets at most."""
    command, responses = open_exchange(Login("u" * 250, "p" * 250), "PLAIN")
    assert command == b"AUTH PLAIN\r\n"
    assert [b64decode(one) for one in responses] == [b"\0" + b"u" * 250 + b"\0" + b"p" * 250]


@pytest.mark.parametrize("reply", [b"535 5.7.8 no\r\n", b"454 4.7.0 later\r\n", b"334 \r\n535 5.7.8 no\r\n"])
def test_a_refusal_leaves_the_session_as_it_was(reply: bytes) -> None:
    client = offered(b"LOGIN")
    client.log_in(LOGIN)
    (event,) = client.receive_data(reply)
    assert isinstance(event, LoginRefused)
    assert client.phase is Phase.IDLE
    client.take_output()
    client.quit()
    assert client.take_output() == b"QUIT\r\n", "nothing of the exchange is left to be said"


@pytest.mark.parametrize("replies", [b"334 a\r\n334 b\r\n334 c\r\n", b"334 a\r\n334 b\r\n334 what else?\r\n"])
def test_a_server_that_asks_on_is_left(replies: bytes) -> None:
    client = offered(b"LOGIN")
    client.log_in(LOGIN)
    event = client.receive_data(replies)[-1]
    assert isinstance(event, Broken)
    assert event.phase is Phase.AUTH


def test_421_ends_the_exchange() -> None:
    client = offered(b"PLAIN")
    client.log_in(LOGIN)
    assert client.receive_data(b"421 bye\r\n") == [Broken(Phase.AUTH, "421", Reply(421, None, "bye"))]


def test_what_is_not_offered_is_not_tried() -> None:
    client = offered(b"GSSAPI")
    with pytest.raises(ValueError, match="mechanism"):
        client.log_in(LOGIN)
    assert client.take_output() == b""


@pytest.mark.parametrize(
    ("user", "password"), [("", "p"), ("u", ""), ("u", "p\0q"), ("u", "p\r\nQUIT"), ("u", "p" * 256)]
)
def test_what_cannot_be_sent_is_no_login(user: str, password: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 octets") as raised:
        Login(user, password)
    assert not password or password not in str(raised.value)


def test_the_password_is_not_shown() -> None:
    assert "pässword" not in repr(LOGIN)


# --- TLS from the first octet (RFC 8314)


def test_with_implicit_tls_the_greeting_comes_behind_the_handshake() -> None:
    client = SmtpClient("us.test", implicit_tls=True)
    assert client.phase is Phase.TLS
    client.tls_started()
    assert client.take_output() == b""
    assert client.receive_data(b"220 hi\r\n") == []
    assert client.take_output() == b"EHLO us.test\r\n"


def test_with_implicit_tls_nothing_may_come_in_clear() -> None:
    client = SmtpClient("us.test", implicit_tls=True)
    (event,) = client.receive_data(b"220 hi\r\n250 AUTH PLAIN\r\n")
    assert isinstance(event, Broken)
    assert event.reason == "bytes in clear before the TLS handshake"
